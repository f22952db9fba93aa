//! Why the driver finds no server to choose: what those that answer say of themselves.
//!
//! The driver passes over a member whose set is not initiated, and over a standalone server where a set is named, and so
//! reports that nothing can be reached. Asked directly, they say what they are.

use std::time::Duration;

use futures::future::join_all;
use mongodb::{
    Client,
    bson::{Document, doc},
    options::{ClientOptions, ServerAddress},
};
use tokio::time::timeout;

use super::connect::ConnectError;

/// How many of the servers that the URI names are asked, and how long each may take to answer, in seconds.
const ASKED_MAX: usize = 3;
const ANSWER_SECS_MAX: u64 = 2;

/// Asks the servers that `options` name what they are. `None` when that explains nothing.
pub(super) async fn diagnose(options: &ClientOptions, hosts: &str) -> Option<ConnectError> {
    let asked = options.hosts.iter().take(ASKED_MAX).map(|host| hello_of(host, options));
    let answers = join_all(asked).await;
    answers.iter().flatten().find_map(|hello| fault_in(hello, hosts))
}

/// What is wrong with a server that says this of itself, if that is no member of a set.
pub(super) fn fault_in(hello: &Document, hosts: &str) -> Option<ConnectError> {
    let hosts = || hosts.to_owned();
    let is_sharded = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    if is_sharded || hello.get_str("setName").is_ok() {
        return None;
    }
    // It was started with --replSet, and has no set yet.
    if hello.get_bool("isreplicaset").unwrap_or(false) {
        return Some(ConnectError::NotInitiated { hosts: hosts() });
    }
    Some(ConnectError::Standalone { hosts: hosts() })
}

/// Nobody needs to sign in to ask that, and who can not sign in is told so elsewhere.
async fn hello_of(host: &ServerAddress, options: &ClientOptions) -> Option<Document> {
    let mut direct = options.clone();
    direct.hosts = vec![host.clone()];
    direct.direct_connection = Some(true);
    direct.repl_set_name = None;
    direct.load_balanced = None;
    direct.credential = None;
    direct.server_selection_timeout = Some(Duration::from_secs(ANSWER_SECS_MAX));
    let client = Client::with_options(direct).ok()?;
    let admin = client.database("admin");
    let asking = admin.run_command(doc! { "hello": 1 });
    timeout(Duration::from_secs(ANSWER_SECS_MAX), asking).await.ok()?.ok()
}
