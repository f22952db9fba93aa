//! A mongod that a test starts by itself: for what the others must not have.

use std::process::Stdio;

use mongo_replica_set::find_or_fetch;
use mongodb::{
    Client, Database,
    bson::{Document, doc},
};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::harness::eventually;

/// The name of the set that it is, if it is one.
pub const SET: &str = "rs9";
/// The password of all users, and as it stands in a URI.
const PASSWORD: &str = "hunter2/@";
const PASSWORD_IN_URI: &str = "hunter2%2F%40";

/// See the module. Dropping it kills it.
pub struct Mongod {
    port: u16,
    _child: Child,
    _dir: TempDir,
}

impl Mongod {
    pub async fn start(args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), args).await
    }

    async fn start_in(dir: TempDir, args: &[&str]) -> Self {
        let program = find_or_fetch(|sentence| eprintln!("{sentence}")).await.expect("a mongod");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--quiet"]);
        command.arg("--dbpath").arg(dir.path()).args(["--port", &port.to_string()]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().expect("mongod starts");
        let mongod = Self { port, _child: child, _dir: dir };
        let admin = mongod.direct("").await;
        eventually("mongod answers", async || admin.run_command(doc! { "hello": 1 }).await.ok()).await;
        mongod
    }

    /// A set of one member that lets nobody in but `root`, and users of the database `corriente`: `writer`, `reader`, named
    /// by their roles, and `nobody`.
    pub async fn with_users() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key_file = dir.path().join("key");
        std::fs::write(&key_file, "c29tZSBzaGFyZWQgc2VjcmV0").unwrap();
        std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let key_file = key_file.to_str().unwrap().to_owned();
        let mongod = Self::start_in(dir, &["--replSet", SET, "--keyFile", &key_file]).await;
        // Until there is a user, whoever comes from this machine may make one.
        let admin = mongod.direct("").await;
        let set = doc! { "_id": SET, "members": [{ "_id": 0, "host": mongod.host() }] };
        admin.run_command(doc! { "replSetInitiate": set }).await.unwrap();
        eventually("a primary", async || {
            let hello: Document = admin.run_command(doc! { "hello": 1 }).await.ok()?;
            hello.get_bool("isWritablePrimary").is_ok_and(|primary| primary).then_some(())
        })
        .await;
        let root = doc! { "createUser": "root", "pwd": PASSWORD, "roles": ["root"] };
        admin.run_command(root).await.unwrap();
        let admin = mongod.root().await;
        for (user, role) in [("writer", Some("readWrite")), ("reader", Some("read")), ("nobody", None)] {
            let roles: Vec<Document> = role.iter().map(|role| doc! { "role": *role, "db": "corriente" }).collect();
            admin.run_command(doc! { "createUser": user, "pwd": PASSWORD, "roles": roles }).await.unwrap();
        }
        mongod
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// For a user with a password, as it stands in a URI.
    pub fn uri(&self, user: &str, password: &str) -> String {
        format!("mongodb://{user}:{password}@{}/?replicaSet={SET}&authSource=admin", self.host())
    }

    /// For a user of [`Self::with_users`].
    pub fn uri_of(&self, user: &str) -> String {
        self.uri(user, PASSWORD_IN_URI)
    }

    /// Its database `admin` as `root`, of [`Self::with_users`], sees it.
    pub async fn root(&self) -> Database {
        self.direct(&format!("root:{PASSWORD_IN_URI}@")).await
    }

    /// Its database `admin`, whatever role it has.
    async fn direct(&self, credentials: &str) -> Database {
        let uri = format!("mongodb://{credentials}{}/?directConnection=true", self.host());
        Client::with_uri_str(uri).await.unwrap().database("admin")
    }
}
