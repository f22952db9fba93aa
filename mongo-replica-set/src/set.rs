//! The public face: a replica set that is started, disturbed, and stopped.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::doc;
use futures::future::{join_all, try_join_all};

use crate::data_dir::{DataDir, Remembered};
use crate::member::{Member, Recipe};
use crate::wire::Failure;
use crate::{Error, configuration, fetch, ports};

/// A majority of more would help nobody on one machine, and MongoDB allows no more voters.
const MEMBERS_MAX: usize = 7;

/// One member is ready in less than a second; three wait for heartbeats and copy each other.
const READY_WITHIN: Duration = Duration::from_secs(60);
const PRIMARY_WITHIN: Duration = Duration::from_secs(30);
/// A clean shutdown writes a checkpoint, which takes as long as the disk needs.
const STOP_WITHIN: Duration = Duration::from_secs(10);
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// How often each member is started again within a minute.
const RESTARTS_PER_MINUTE_MAX: usize = 5;

/// The name of a set whose files stay: the URI must be the same after every start.
const LASTING_NAME: &str = "rs0";

/// What to start. The default is one temporary member with a quick journal.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `mongod` program; `None` looks for one and fetches it if need be, see
    /// [`find_or_fetch`](crate::find_or_fetch).
    pub mongod: Option<PathBuf>,
    /// How many members, 1 to 7. A data directory keeps the number that it was made with.
    pub members: usize,
    /// Where the files live. `None` puts them into a temporary directory that goes with the set.
    pub data_dir: Option<PathBuf>,
    /// The preferred port of the first member; the others follow it. `None` prefers the ports of
    /// the last start in this directory, and so does 0. A port that is taken is replaced by a free
    /// one.
    pub port: Option<u16>,
    /// The size of the oplog in megabytes; `None` is MongoDB's choice (5 % of the disk, but at
    /// least 990). Counts only when the files are created.
    pub oplog_size_mb: Option<u32>,
    /// How often the journal is flushed, in milliseconds (1 to 500); `None` is MongoDB's 100. The
    /// default here is 1, because a change stream shows a write with `w: 1` only after the flush:
    /// on average 50 ms later with MongoDB's value, 2 ms later with ours.
    pub journal_commit_interval_ms: Option<u32>,
    /// Allows `failCommand` and the other commands that MongoDB reserves for tests.
    pub test_commands: bool,
    /// Arguments to add to each `mongod`.
    pub extra_args: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            mongod: None,
            members: 1,
            data_dir: None,
            port: None,
            oplog_size_mb: None,
            journal_commit_interval_ms: Some(1),
            test_commands: false,
            extra_args: Vec::new(),
        }
    }
}

/// A running replica set on 127.0.0.1.
///
/// All its methods take `&self`, so that tests can share it in an `Arc`.
///
/// Its mongods end with it: [`stop`](ReplicaSet::stop) shuts them down cleanly, dropping kills them
/// at once, and if the whole process is killed, the kernel (or, without `setpriv`, a waiting shell)
/// kills them. They are in process groups of their own, so that Ctrl-C in a terminal does not reach
/// them before the program that uses them has finished.
#[derive(Debug)]
pub struct ReplicaSet {
    // Before `dir`: the files may go only when the processes have.
    members: Members,
    dir: DataDir,
    name: String,
    uri: String,
}

/// All members. Dropping them kills them all before it waits for the first.
#[derive(Debug)]
struct Members(Vec<Member>);

impl std::ops::Deref for Members {
    type Target = [Member];

    fn deref(&self) -> &[Member] {
        &self.0
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.0.iter().for_each(Member::kill_soon);
    }
}

impl ReplicaSet {
    /// Starts the set and waits until a primary acknowledges writes on a majority.
    ///
    /// `progress` receives sentences for a person, when something takes long or differs from what
    /// was asked. Dropping the future kills what it has started.
    ///
    /// # Errors
    /// When there is no usable `mongod`, when the directory cannot be used or is held by another
    /// process, when a `mongod` ends at once, and when the set is not ready within a minute
    /// (after a change of ports, and only if what took them is silent, 40 s per member later).
    pub async fn start(options: Options, progress: impl Fn(&str) + Send + Sync) -> Result<ReplicaSet, Error> {
        check(&options)?;
        // First the directory: whoever cannot have it need not download anything.
        let dir = DataDir::open(options.data_dir.as_deref()).await?;
        let remembered = dir.remembered()?;
        let preferred_ports = preferred_ports(&options, remembered.as_ref(), dir.path())?;
        let mongod = match &options.mongod {
            Some(path) => fetch::inspect_named(path).await?,
            None => fetch::find_or_fetch_mongod(&progress).await?,
        };
        let start = Instant::now();

        let name = match &options.data_dir {
            Some(_) => LASTING_NAME.to_owned(),
            // A port may be used again by a later set; its name keeps the clients of this one away.
            None => format!("rs-{:08x}", ports::random() as u32),
        };
        let recipe = Arc::new(Recipe {
            mongod,
            set_name: name.clone(),
            temporary: dir.is_temporary(),
            oplog_size_mb: options.oplog_size_mb,
            journal_commit_interval_ms: options.journal_commit_interval_ms,
            test_commands: options.test_commands,
            extra_args: options.extra_args,
        });
        let mut ports = Vec::with_capacity(options.members);
        for preferred in &preferred_ports {
            ports.push(ports::choose(*preferred, &ports).map_err(Error::system("find a free port"))?);
        }
        let mut starts = Vec::with_capacity(ports.len());
        for (index, port) in ports.into_iter().enumerate() {
            starts.push(Member::start(index, recipe.clone(), dir.member_dir(index)?, dir.member_log(index), port));
        }
        let members = Members(try_join_all(starts).await?);
        for (member, preferred) in members.iter().zip(&preferred_ports) {
            if let Some(preferred) = preferred.filter(|preferred| *preferred != member.port) {
                progress(&format!("Port {preferred} is taken; MongoDB uses port {} instead.", member.port));
            }
        }

        configuration::apply(&members, &name).await?;
        configuration::wait_until_ready(&members, READY_WITHIN).await?;
        let hosts: Vec<String> = members.iter().map(|member| format!("127.0.0.1:{}", member.port)).collect();
        let uri = format!("mongodb://{}/?replicaSet={name}", hosts.join(","));
        dir.remember(&Remembered { ports: members.iter().map(|member| member.port).collect() })?;
        dir.announce(Some(&uri))?;
        progress(&format!("MongoDB {} is ready after {:.1} s.", recipe.mongod.version, start.elapsed().as_secs_f32()));
        Ok(ReplicaSet { members, dir, name, uri })
    }

    /// Where the set answers, for any program on this machine:
    /// `mongodb://127.0.0.1:PORT[,...]/?replicaSet=NAME`.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The name of the replica set.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of members, whether or not they run.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The directory that holds the files and logs.
    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where one member answers for itself, primary or not. A number that the set does not have
    /// gives the URI of nobody (port 0).
    pub fn member_uri(&self, member: usize) -> String {
        let port = self.members.get(member).map_or(0, |member| member.port);
        format!("mongodb://127.0.0.1:{port}/?directConnection=true")
    }

    /// The process id of a member's `mongod`; `None` after [`kill`](ReplicaSet::kill).
    pub fn pid(&self, member: usize) -> Option<u32> {
        self.members.get(member).and_then(Member::pid)
    }

    /// The number of the primary, waiting up to 30 s for an election.
    ///
    /// # Errors
    /// When no member is primary by then.
    pub async fn primary(&self) -> Result<usize, Error> {
        self.wait_for_primary(PRIMARY_WITHIN).await
    }

    /// The number of the primary, waiting as long as given for an election.
    ///
    /// # Errors
    /// When no member is primary by then.
    pub async fn wait_for_primary(&self, within: Duration) -> Result<usize, Error> {
        configuration::wait_for_primary(&self.members, within).await
    }

    /// Kills a member with SIGKILL and waits until its process is gone (milliseconds).
    /// Killing a dead member does nothing.
    ///
    /// # Errors
    /// When there is no such member, or the system refuses.
    pub fn kill(&self, member: usize) -> Result<(), Error> {
        self.member(member)?.kill()
    }

    /// Starts a member again on the same port and files, killing it first if it runs. Returns when
    /// it answers, which is before it has caught up or an election is over.
    ///
    /// # Errors
    /// When there is no such member, its port stays taken, or its `mongod` does not come up.
    pub async fn restart(&self, member: usize) -> Result<(), Error> {
        self.member(member)?.restart().await
    }

    /// Stops a member with SIGSTOP: it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// When there is no such member, or it does not run.
    pub fn pause(&self, member: usize) -> Result<(), Error> {
        self.member(member)?.pause()
    }

    /// Lets a paused member go on (SIGCONT).
    ///
    /// # Errors
    /// When there is no such member, or it does not run.
    pub fn resume(&self, member: usize) -> Result<(), Error> {
        self.member(member)?.resume()
    }

    /// Makes the primary step down, and returns when it has. Of several members another one takes
    /// over; a single member is primary again after a second.
    ///
    /// # Errors
    /// When there is no primary within 30 s, or it refuses.
    pub async fn step_down(&self) -> Result<(), Error> {
        let primary = self.primary().await?;
        // With others, long enough that one of them is elected. They get up to a second to catch
        // up, since the first of them that has may then take over without a timeout.
        let (secs, catch_up_secs) = if self.members.len() > 1 { (10, 1) } else { (1, 0) };
        let command = doc! { "replSetStepDown": secs, "secondaryCatchUpPeriodSecs": catch_up_secs, "force": true };
        match self.member(primary)?.command(command, Duration::from_secs(15)).await {
            Ok(_) => Ok(()),
            // Stepping down may close connections, also the one that asked.
            Err(Failure::Io(_)) => Ok(()),
            Err(failure) => {
                Err(Error::Refused { member: primary, command: "replSetStepDown", why: failure.to_string() })
            }
        }
    }

    /// Waits until a `mongod` ends that nobody killed through this set, and says why it ended. For
    /// programs that must not live on without their database.
    pub async fn unexpected_end(&self) -> Error {
        self.next_end().await.1
    }

    /// Starts a member again whenever its `mongod` ends and nobody killed it through this set, after telling `warn` why it
    /// ended: whoever is connected to the set then sees a member that comes back. Returns when that fails, or when it is of
    /// no use.
    pub async fn keep_running(&self, warn: impl Fn(&Error)) -> Error {
        let times_max = RESTARTS_PER_MINUTE_MAX * self.members.len();
        let mut ends = VecDeque::new();
        loop {
            let (member, end) = self.next_end().await;
            // One that ends again and again (a full disk, say) is not helped by starting it for ever.
            ends.push_back(Instant::now());
            ends.retain(|at: &Instant| at.elapsed() < Duration::from_secs(60));
            if ends.len() > times_max {
                return Error::EndsAgain { times: ends.len(), end: Box::new(end) };
            }
            warn(&end);
            if let Err(error) = member.restart().await {
                return error;
            }
        }
    }

    async fn next_end(&self) -> (&Member, Error) {
        loop {
            let ended = self.members.iter().find_map(|member| Some((member, member.unexpected_end()?)));
            if let Some(ended) = ended {
                return ended;
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    /// Shuts all members down, cleanly if their files stay, and removes temporary files.
    ///
    /// # Errors
    /// When a process cannot be ended, or the temporary directory cannot be removed.
    pub async fn stop(self) -> Result<(), Error> {
        if self.dir.is_temporary() {
            // Nobody will read the files again, so there is no reason to tidy them up first.
            self.members.iter().for_each(Member::kill_soon);
        }
        let stops = self.members.iter().map(|member| member.terminate(STOP_WITHIN));
        let stopped: Result<Vec<()>, Error> = join_all(stops).await.into_iter().collect();
        let ReplicaSet { members, dir, .. } = self;
        // Also those that did not end are killed before their files go.
        drop(members);
        stopped.and(dir.close())
    }

    fn member(&self, member: usize) -> Result<&Member, Error> {
        self.members.get(member).ok_or(Error::NoSuchMember { member, why: "does not exist in this set" })
    }
}

fn check(options: &Options) -> Result<(), Error> {
    if !(1..=MEMBERS_MAX).contains(&options.members) {
        return Err(Error::Options(format!("a replica set has 1 to {MEMBERS_MAX} members, not {}", options.members)));
    }
    Ok(())
}

fn preferred_ports(options: &Options, remembered: Option<&Remembered>, dir: &Path) -> Result<Vec<Option<u16>>, Error> {
    if let Some(remembered) = remembered
        && remembered.ports.len() != options.members
    {
        return Err(Error::Options(format!(
            "{} holds a replica set of {} members, not of {}; ask for that number, or use another directory",
            dir.display(),
            remembered.ports.len(),
            options.members
        )));
    }
    let of = |index: usize| match (options.port.filter(|port| *port != 0), remembered) {
        (Some(first), _) => u16::try_from(index).ok().and_then(|index| first.checked_add(index)),
        (None, Some(remembered)) => remembered.ports.get(index).copied(),
        (None, None) => None,
    };
    Ok((0..options.members).map(of).collect())
}
