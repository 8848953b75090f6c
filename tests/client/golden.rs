//! Sessions with a server that is a script: which messages the client sends, in which order, and when it is connected,
//! verified and told of changes. The subjects are those that ZEO 6 checks of its own client (`ZEO.asyncio.tests`:
//! `ClientTests`, and `MsgpackClientTests` with the other encoding).
//!
//! `older` has what only servers before ZEO 5 do, whose clients have no such tests.
//!
//! Different on purpose:
//!
//! - Greeting: Python's client takes each one for that of a newer server that sorts behind its own, as `Z99999`; this
//!   one only such of the same length.
//! - Loads: Python's client asks for what is before the end of time, this one for what is before the tid after the last
//!   transaction, so a reply is never from a transaction that has not arrived yet.
//! - Verification: this client asks for the tid of the newest cached revision (`getTid`), which in another database
//!   is different.
//! - News: this client tells of transactions that arrived during verification when the connection is in use, after the
//!   answer to `get_info`; Python's before that call.
//! - Loss: in Python a load that is under way fails; here it is sent again on the next connection.
//! - Before the first connection Python's calls fail at once; here they wait up to `wait-timeout`, as after a loss.
//! - Read-only fallback: Python's client uses a server that only reads at once, this one when no other address is about
//!   to answer, at most five seconds later. Python's closes that connection when a server that can be written has
//!   registered it; this one when it has verified its cache with that server.
//! - Pauses: Python's client tries an address again after one to two seconds, this one after a quarter of a second,
//!   then slower. A sign of life is sent each minute by Python's, after half a minute without another message by this
//!   one.
//!
//! Messages that a slow server does not take are in `client/link`, pieces of blobs in `blob_transfers`.

mod connecting;
mod messages;
mod older;
mod peer;
