//! From a connection string to a session: the hosts in turn, each of their addresses, encryption, authentication, and
//! whether the server is of the wanted kind. The same order and the same second tries as libpq's.

use std::fmt;
use std::io;
use std::time::Duration;

use socket2::Socket;

use super::batch::{Batch, Statement};
use super::connection::{Connection, Limits};
use super::dsn::{Dsn, Host, SslMode, Target, uid_of};
use super::encrypt::{EncryptError, encrypt};
use super::error::{SHOWN_LEN_MAX, SqlState};
use super::login::{Login, LoginError, log_in};
use super::peer::{Peer, SocketPlace};
use super::session::LOG;
use super::transport::Transport;
use crate::base::cancel::Cancel;
use crate::base::clock::IoDeadline;
use crate::base::untrusted::one_line;
use crate::net::peer_process::peer_process;
use crate::net::resolve::{ResolveError, resolve};

/// For the look-up of a name if no time is given.
const LOOK_UP_TIME: Duration = Duration::from_secs(300);
/// `cannot_connect_now`: the server starts, stops, or is a standby that takes no sessions.
const NOT_NOW: &str = "57P03";
/// Errors of the server after which the same attempt may succeed: that, `too_many_connections`, and a server that
/// stops. Class 08 is about connections, 53 about lack of resources.
const RETRIABLE: &[&str] = &["57P0", "08", "53"];

/// Why there is no session, for each host that was tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OpenError {
    /// What happened where, in one line.
    pub what: String,
    /// The server's error, if it was one that ended the attempt.
    pub code: Option<SqlState>,
    /// The same attempt may succeed later.
    pub is_retriable: bool,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for OpenError {}

/// Why an attempt has failed, and what to try next.
#[derive(Debug)]
struct FailedAttempt {
    error: OpenError,
    next: Next,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    /// The next address of the host.
    Address,
    Host,
    /// Nothing: another server would say the same.
    Nothing,
    /// The same with or without encryption, or nothing if that was tried.
    OtherEncryption,
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Encryption {
    Plain,
    Tls,
    TlsIfOffered,
}

impl FailedAttempt {
    /// `what` may have text of the server in it: it is made one line, safe for a log.
    fn new(what: impl fmt::Display, is_retriable: bool, next: Next) -> FailedAttempt {
        let what = one_line(SHOWN_LEN_MAX, format_args!("{what}"));
        FailedAttempt { error: OpenError { what, code: None, is_retriable }, next }
    }

    fn at(mut self, peer: &Peer) -> FailedAttempt {
        self.error.what = format!("{peer}: {}", self.error.what);
        self
    }
}

impl From<LoginError> for FailedAttempt {
    fn from(error: LoginError) -> FailedAttempt {
        match error {
            LoginError::Refused(error) => {
                let code = error.code.as_str();
                let is_retriable = RETRIABLE.iter().any(|start| code.starts_with(start));
                let next = if code == NOT_NOW { Next::Host } else { Next::OtherEncryption };
                let mut failure = FailedAttempt::new(error.to_string(), is_retriable, next);
                failure.error.code = Some(error.code);
                failure
            }
            LoginError::Own(why) => FailedAttempt::new(why, false, Next::Nothing),
            LoginError::Lost(lost) => FailedAttempt::new(lost.reason, true, Next::Address),
        }
    }
}

impl From<EncryptError> for FailedAttempt {
    fn from(error: EncryptError) -> FailedAttempt {
        match error {
            EncryptError::Files(why) => FailedAttempt::new(why, false, Next::OtherEncryption),
            EncryptError::NotOffered => {
                let why = "the server has no TLS, which sslmode demands";
                FailedAttempt::new(why, false, Next::OtherEncryption)
            }
            EncryptError::Handshake(why) => FailedAttempt::new(why, false, Next::OtherEncryption),
            EncryptError::Broken(error) => io_failure(&error),
        }
    }
}

fn io_failure(error: &io::Error) -> FailedAttempt {
    let why = match error.kind() {
        io::ErrorKind::TimedOut => "the server did not answer within connect_timeout".to_string(),
        _ => error.to_string(),
    };
    FailedAttempt::new(why, true, Next::Address)
}

impl Connection {
    /// Opens a session with the first host that can be used. The error names each host that was tried.
    pub fn open(dsn: &Dsn, login: &Login) -> Result<Connection, OpenError> {
        let passes: &[Target] = match dsn.target {
            Target::PreferStandby => &[Target::Standby, Target::Any],
            other => &[other],
        };
        let mut errors: Vec<OpenError> = Vec::new();
        for target in passes {
            errors.clear();
            for host in shuffled(&dsn.hosts, dsn.is_shuffled) {
                match open_host(dsn, host, login, *target) {
                    Ok(connection) => return Ok(connection),
                    Err(failure) => {
                        errors.push(failure.error);
                        if failure.next != Next::Host {
                            return Err(together(errors));
                        }
                    }
                }
            }
        }
        Err(together(errors))
    }

    /// A session over a connected socket, with limits of its own. Without encryption.
    pub fn over(
        socket: impl Into<Socket>,
        dsn: &Dsn,
        login: &Login,
        limits: Limits,
    ) -> Result<Connection, OpenError> {
        let peer = Peer { host: "a socket".into(), port: 0, place: SocketPlace::Unix("".into()) };
        let until = login.connect_timeout.map(IoDeadline::after);
        let begin = || {
            let transport = Transport::new(socket.into()).map_err(|error| io_failure(&error))?;
            let mut connection = Connection::new(transport, peer.clone(), limits);
            log_in(&mut connection, dsn, login, dsn.password_for(&dsn.hosts[0]), until)?;
            Ok(connection)
        };
        begin().map_err(|failure: FailedAttempt| failure.at(&peer).error)
    }
}

/// All errors as one, which can be retried if one of them can.
fn together(errors: Vec<OpenError>) -> OpenError {
    OpenError {
        what: errors.iter().map(|error| error.what.as_str()).collect::<Vec<_>>().join("; "),
        code: errors.iter().rev().find_map(|error| error.code),
        is_retriable: errors.iter().any(|error| error.is_retriable),
    }
}

/// The items in their order, or in a random one.
fn shuffled<T>(items: &[T], is_random: bool) -> Vec<&T> {
    let mut order: Vec<&T> = items.iter().collect();
    if is_random {
        for at in (1..order.len()).rev() {
            // Without random numbers the order stays as it is.
            let random = getrandom::u32().unwrap_or(0);
            order.swap(at, usize::try_from(random).unwrap_or(0) % (at + 1));
        }
    }
    order
}

/// Tries the addresses of a host. The failure says whether other hosts are to be tried.
fn open_host(dsn: &Dsn, host: &Host, login: &Login, target: Target) -> Result<Connection, FailedAttempt> {
    // For each address, as with libpq.
    let time = dsn.connect_timeout.or(login.connect_timeout).filter(|time| !time.is_zero());
    let peers = peers(host, time, dsn.is_shuffled)?;
    let mut errors = Vec::new();
    for peer in peers {
        match open_peer(dsn, host, &peer, login, time) {
            Ok(mut connection) => {
                check_target(&mut connection, target, time).map_err(|failure| failure.at(&peer))?;
                return Ok(connection);
            }
            Err(failure) => {
                let failure = failure.at(&peer);
                errors.push(failure.error);
                if failure.next != Next::Address {
                    return Err(FailedAttempt { error: together(errors), next: failure.next });
                }
            }
        }
    }
    Err(FailedAttempt { error: together(errors), next: Next::Host })
}

/// The addresses of a host.
fn peers(host: &Host, time: Option<Duration>, is_shuffled: bool) -> Result<Vec<Peer>, FailedAttempt> {
    let peer = |place| Peer { host: host.host.clone(), port: host.port, place };
    if let Some(path) = host.socket_path() {
        // The name of a socket without a file begins with a zero byte in place of the '@'.
        let path = path.strip_prefix('@').map_or(path.clone(), |name| format!("\0{name}"));
        return Ok(vec![peer(SocketPlace::Unix(path.into()))]);
    }
    if let Some(address) = host.address {
        return Ok(vec![peer(SocketPlace::Tcp((address, host.port).into()))]);
    }
    let until = IoDeadline::after(time.unwrap_or(LOOK_UP_TIME));
    let found = resolve(&host.host, host.port, until, &Cancel::default()).map_err(|error| {
        let why = match error {
            ResolveError::Failed(error) => error.to_string(),
            ResolveError::Cancelled | ResolveError::TimedOut => "it takes too long".into(),
        };
        FailedAttempt::new(format!("looking up the host {}: {why}", host.host), true, Next::Host)
    })?;
    Ok(shuffled(&found, is_shuffled).into_iter().map(|address| peer(SocketPlace::Tcp(*address))).collect())
}

/// Tries an address, with and without encryption as `sslmode` says.
fn open_peer(
    dsn: &Dsn,
    host: &Host,
    peer: &Peer,
    login: &Login,
    time: Option<Duration>,
) -> Result<Connection, FailedAttempt> {
    let plans: &[Encryption] = match (&peer.place, dsn.ssl.mode) {
        // As with libpq, sockets of the same machine are never encrypted.
        (SocketPlace::Unix(_), _) | (_, SslMode::Disable) => &[Encryption::Plain],
        (_, SslMode::Allow) => &[Encryption::Plain, Encryption::Tls],
        (_, SslMode::Prefer) => &[Encryption::TlsIfOffered, Encryption::Plain],
        _ => &[Encryption::Tls],
    };
    let mut first: Option<FailedAttempt> = None;
    for plan in plans {
        let until = time.map(IoDeadline::after);
        let mut is_encrypted = false;
        let failure = match open_one(dsn, host, peer, login, *plan, until, &mut is_encrypted) {
            Ok(connection) => {
                if let Some(first) = first {
                    let how = if is_encrypted { "with" } else { "without" };
                    log::info!(target: LOG, "{peer}: a session {how} TLS, for the other way failed: {}", first.error);
                }
                return Ok(connection);
            }
            Err(failure) => failure,
        };
        let goes_on = failure.next == Next::OtherEncryption
            // Without TLS although it was asked for: the same again would be no other attempt.
            && (*plan != Encryption::TlsIfOffered || is_encrypted);
        first = Some(match first {
            None => failure,
            Some(first) => {
                FailedAttempt { error: together(vec![first.error, failure.error]), next: failure.next }
            }
        });
        if !goes_on {
            break;
        }
    }
    let mut failure = first.unwrap_or_else(|| FailedAttempt::new("nothing was tried", false, Next::Nothing));
    if failure.next == Next::OtherEncryption {
        failure.next = Next::Nothing;
    }
    Err(failure)
}

/// One attempt. `is_encrypted` says whether TLS was begun.
fn open_one(
    dsn: &Dsn,
    host: &Host,
    peer: &Peer,
    login: &Login,
    encryption: Encryption,
    until: Option<IoDeadline>,
    is_encrypted: &mut bool,
) -> Result<Connection, FailedAttempt> {
    let socket = peer.connect(&dsn.keep_alive, until).map_err(|error| io_failure(&error))?;
    if let (SocketPlace::Unix(_), Some(user)) = (&peer.place, &dsn.required_peer) {
        let of_server = peer_process(&socket).map_err(|error| io_failure(&error))?.0.uid;
        if uid_of(user) != Some(of_server) {
            let why =
                format!("the server's process is of user {of_server}, and requirepeer demands '{user}'");
            return Err(FailedAttempt::new(why, false, Next::Nothing));
        }
    }
    let mut transport = Transport::new(socket).map_err(|error| io_failure(&error))?;
    if encryption != Encryption::Plain {
        *is_encrypted = true;
        match encrypt(&mut transport, &dsn.ssl, host, until) {
            Err(EncryptError::NotOffered) if encryption == Encryption::TlsIfOffered => *is_encrypted = false,
            result => result?,
        }
    }
    let mut connection = Connection::new(transport, peer.clone(), Limits::default());
    log_in(&mut connection, dsn, login, dsn.password_for(host), until)?;
    Ok(connection)
}

/// For servers before version 14, which do not report it.
const STATE: Statement = Statement {
    sql: "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'",
    types: &[],
};

/// Whether the server is of the wanted kind.
fn check_target(
    connection: &mut Connection,
    target: Target,
    time: Option<Duration>,
) -> Result<(), FailedAttempt> {
    if matches!(target, Target::Any | Target::PreferStandby) {
        return Ok(());
    }
    let reported = |name| connection.parameter(name).map(|value| value == "on");
    let reported = reported("in_hot_standby").zip(reported("default_transaction_read_only"));
    let (is_standby, is_read_only) = match reported {
        Some(reported) => reported,
        None => ask_state(connection, time)?,
    };
    let (is_right, wanted) = match target {
        Target::ReadWrite => (!is_standby && !is_read_only, "its sessions are read-only"),
        Target::ReadOnly => (is_standby || is_read_only, "its sessions are not read-only"),
        Target::Primary => (!is_standby, "it is a standby"),
        Target::Standby => (is_standby, "it is not a standby"),
        Target::Any | Target::PreferStandby => (true, ""),
    };
    if is_right {
        return Ok(());
    }
    Err(FailedAttempt::new(format!("not as target_session_attrs demands: {wanted}"), true, Next::Host))
}

fn ask_state(connection: &mut Connection, time: Option<Duration>) -> Result<(bool, bool), FailedAttempt> {
    let mut batch = Batch::new();
    batch
        .execute(&STATE, &[])
        .map_err(|error| FailedAttempt::new(error.to_string(), false, Next::Nothing))?;
    batch.sync();
    connection.set_deadline(time);
    let answers = connection.run(&batch).map_err(LoginError::Lost)?;
    connection.set_deadline(None);
    let answer = answers.into_iter().next().transpose().map_err(LoginError::Refused)?;
    let row = answer.as_ref().and_then(|done| done.first()?.first());
    let row = row.ok_or_else(|| FailedAttempt::new("no answer about its state", true, Next::Host))?;
    let column =
        |at| row.required_bool(at).map_err(|error| FailedAttempt::new(error.to_string(), false, Next::Host));
    Ok((column(0)?, column(1)?))
}
