//! The whole program as seen by clients and operators: a server process, or a server in this process on a disk that the
//! test can hold, and raw clients that see the byte stream.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod audit;
mod authentication;
mod backups;
mod blob_messages;
mod cluster;
mod cluster_killed;
mod cluster_roles;
mod cluster_shown;
mod cold_reads;
mod commit_states;
mod failing_calls;
mod fairness;
mod hostile;
mod http;
mod large_records;
mod limits;
mod listeners;
mod log_lines;
mod log_under_locks;
mod monitor;
mod order;
mod pack_cancel;
mod pack_plan;
mod pack_schedule;
mod pack_status;
mod permissions;
mod priority;
mod quiet;
mod rates;
mod reload;
mod scrub;
mod sent_backups;
mod sessions;
mod short_of_memory;
mod slow_merge;
mod slow_requests;
mod start;
mod status;
mod supervised;
mod timeouts;
mod tls;
mod transaction_work;
mod verify_each;
mod verify_many;
mod zeo_nagios;
mod zeoadmin;
mod zeoctl;
mod zeopasswd;
mod zrs;
mod zrs_nagios;
