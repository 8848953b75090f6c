//! Prints what the database of a running ZEO server has, of any generation, and follows it.
//!
//! ```text
//! cargo run --example zeo_client -- localhost 8100
//! cargo run --example zeo_client -- localhost 8100 --follow
//! ```
//!
//! With `--follow` one line for each transaction that anybody commits from then on.

use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc;

use runzeo::client::{Address, Changed, Client, ClientOptions};
use runzeo::ids::Oid;
use runzeo::storage::{Storage, StorageError, class_name};

/// A few lines about the database.
pub fn describe(client: &Client) -> Result<String, StorageError> {
    let view = client.view();
    let mut lines =
        format!("{}: {} objects, {} bytes\n", client.name(), client.object_count(), client.size());
    lines.push_str(&format!("last transaction {}\n", client.last_transaction()));
    match view.load(Oid::ZERO) {
        Ok(Some(root)) => {
            let class = class_name(&root.data).map_or("an unknown class".into(), |class| class.to_string());
            lines.push_str(&format!("the root is {class}, {} bytes, of {}\n", root.data.len(), root.serial));
        }
        Ok(None) | Err(StorageError::PosKey(_)) => lines.push_str("there is no root yet\n"),
        Err(error) => return Err(error),
    }
    Ok(lines)
}

/// A line for each transaction, until the process ends.
fn follow(client: &Client) {
    let (sender, lines) = mpsc::channel();
    client.on_change(move |changed| {
        let line = match changed {
            Changed::Transaction { tid, oids } => format!("{tid}: {} objects", oids.len()),
            Changed::Missed { last, oids } => {
                format!("up to {last}: {} objects, while not connected", oids.len())
            }
            other => format!("{other:?}"),
        };
        // The receiver lives as long as the client.
        let _ = sender.send(line);
    });
    lines.iter().for_each(|line| println!("{line}"));
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [host, port, rest @ ..] = arguments else { return Err("give a host and a port".into()) };
    let address = Address::Tcp { host: Some(host.clone()), port: Some(port.parse()?) };
    let mut options = ClientOptions::new(vec![address]);
    options.read_only = true;
    let client = Client::open(options)?;
    print!("{}", describe(&client)?);
    if rest.iter().any(|argument| argument == "--follow") {
        follow(&client);
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zeo_client: {error}");
            ExitCode::FAILURE
        }
    }
}
