//! What can go wrong. Each fault is brought about, held for a moment and healed.

use std::{sync::Arc, time::Duration};

use mongo_replica_set::ReplicaSet;
use mongodb::{
    Client,
    bson::{Document, doc},
};
use rand::{RngExt, rngs::StdRng};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{programs::Program, traffic::Traffic};

/// How long MongoDB may take to have a primary again, in seconds.
const PRIMARY_SECS_MAX: u64 = 60;

/// Every fault, in the words of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillPrimary,
    KillMember,
    KillMajority,
    PausePrimary,
    PauseMember,
    StepDown,
    KillServer,
    StopServer,
    CutClients,
    FailStream,
    FailInserts,
}

impl Fault {
    pub const ALL: [Self; 11] = [
        Self::KillPrimary,
        Self::KillMember,
        Self::KillMajority,
        Self::PausePrimary,
        Self::PauseMember,
        Self::StepDown,
        Self::KillServer,
        Self::StopServer,
        Self::CutClients,
        Self::FailStream,
        Self::FailInserts,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::KillPrimary => "kill the primary",
            Self::KillMember => "kill a member",
            Self::KillMajority => "kill two members",
            Self::PausePrimary => "pause the primary",
            Self::PauseMember => "pause a member",
            Self::StepDown => "step down",
            Self::KillServer => "kill a server",
            Self::StopServer => "stop a server",
            Self::CutClients => "cut all clients",
            Self::FailStream => "getMore fails",
            Self::FailInserts => "insert fails",
        }
    }
}

/// Faults in random order, of which each comes before any comes again: a short run has them all.
#[derive(Default)]
pub struct Deck(Vec<Fault>);

impl Deck {
    pub fn draw(&mut self, rng: &mut StdRng) -> Fault {
        if self.0.is_empty() {
            self.0 = Fault::ALL.to_vec();
        }
        self.0.swap_remove(rng.random_range(0..self.0.len()))
    }
}

/// What the faults work on.
pub struct Victims {
    pub set: Arc<ReplicaSet>,
    pub programs: Vec<Arc<Program>>,
    pub traffic: Traffic,
    /// The `appName` of the servers.
    pub app_name: String,
    /// A `mongod` has one `failCommand`.
    pub fail_point: Mutex<()>,
}

impl Victims {
    /// Brings `fault` about and heals it. What can not be done because of another fault is left out.
    pub async fn suffer(&self, fault: Fault, rng: &mut StdRng) {
        let hold = Duration::from_millis(rng.random_range(100..4_000));
        let member = rng.random_range(0..self.set.members());
        // The first of several servers is never ended: what it would leak has the whole run to show itself.
        let first = usize::from(self.programs.len() > 1);
        let server = &self.programs[rng.random_range(first..self.programs.len())];
        match fault {
            Fault::KillPrimary | Fault::PausePrimary => {
                let Ok(primary) = self.set.wait_for_primary(Duration::from_secs(5)).await else {
                    return;
                };
                self.without(&[primary], fault == Fault::KillPrimary, hold).await;
            }
            Fault::KillMember | Fault::PauseMember => self.without(&[member], fault == Fault::KillMember, hold).await,
            Fault::KillMajority => self.without(&[member, (member + 1) % self.set.members()], true, hold).await,
            Fault::StepDown => drop(timeout(Duration::from_secs(20), self.set.step_down()).await),
            Fault::KillServer => {
                server.kill().await;
                sleep(hold / 4).await;
                self.start_again(server).await;
            }
            Fault::StopServer => {
                if let Err(broken) = server.stop().await {
                    self.traffic.stage.ledger().scandal(format!("{broken:#}"));
                }
                sleep(hold / 4).await;
                self.start_again(server).await;
            }
            Fault::CutClients => self.traffic.cut(),
            Fault::FailStream => {
                let codes = [43, 189, 10107, 11600, 11602, 91, 11601, 237, 50, 262, 136, 13];
                let data = match rng.random_range(0..codes.len() + 1) {
                    at if at < codes.len() => doc! { "errorCode": codes[at] },
                    _ => doc! { "closeConnection": true },
                };
                self.fail(&["getMore", "aggregate"][..rng.random_range(1..=2)], rng.random_range(1..4), data, hold)
                    .await;
            }
            Fault::FailInserts => {
                let data = match rng.random_range(0..3) {
                    0 => doc! { "closeConnection": true },
                    1 => doc! { "errorCode": 91 },
                    _ => doc! { "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } },
                };
                self.fail(&["insert"], rng.random_range(1..20), data, hold).await;
            }
        }
    }

    async fn without(&self, members: &[usize], by_force: bool, hold: Duration) {
        for member in members {
            let _ = if by_force { self.set.kill(*member) } else { self.set.pause(*member) };
        }
        sleep(hold).await;
        for member in members {
            let _ = match by_force {
                true => self.set.restart(*member).await,
                false => self.set.resume(*member),
            };
        }
    }

    async fn start_again(&self, server: &Program) {
        if let Err(broken) = server.restart().await {
            self.traffic.stage.ledger().scandal(format!("{broken:#}"));
        }
    }

    async fn fail(&self, commands: &[&str], times: i32, mut data: Document, hold: Duration) {
        let _turn = self.fail_point.lock().await;
        data.extend(doc! { "failCommands": commands, "appName": &self.app_name });
        self.configure(doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data }).await;
        sleep(hold / 2).await;
        self.configure(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await;
    }

    /// On every member that answers: whoever is primary then has it.
    async fn configure(&self, command: Document) {
        for member in 0..self.set.members() {
            let asking = async {
                let client = Client::with_uri_str(self.set.member_uri(member)).await.ok()?;
                client.database("admin").run_command(command.clone()).await.ok()
            };
            let _ = timeout(Duration::from_secs(1), asking).await;
        }
    }

    /// Everything runs again, whatever was left undone.
    pub async fn heal(&self) -> anyhow::Result<()> {
        for member in 0..self.set.members() {
            let _ = self.set.resume(member);
            if self.set.pid(member).is_none() {
                self.set.restart(member).await?;
            }
        }
        self.set.wait_for_primary(Duration::from_secs(PRIMARY_SECS_MAX)).await?;
        Ok(())
    }
}
