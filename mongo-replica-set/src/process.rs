//! A child process that dies with this one.
//!
//! A program that is killed with `kill -9` cannot clean up, and a mongod that lives on would keep
//! the data directory locked and burn memory for nobody. Linux can send a child a signal when its
//! parent dies; elsewhere a subshell waits at the end of a pipe that only the parent holds.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// After SIGKILL the kernel still has to free the memory, which takes milliseconds; a process
/// that hangs in a broken file system may never go, and must not take us with it.
const REAP_WITHIN: Duration = Duration::from_secs(5);

/// A running child, or one that has ended and is not yet reaped. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Our end of the pipe to the subshell, where the death signal is not to be had.
    lifeline: Option<ChildStdin>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `program` with its output in `log` and nothing on its standard input.
    pub(crate) fn spawn(program: &Path, args: &[String], log: &File) -> io::Result<Process> {
        let by_signal = death_signal_is_available();
        let mut command = if by_signal {
            let mut command = Command::new("setpriv");
            // The shell closes the window between our fork and the request for the signal: whoever
            // has another parent by then has lost us already, and must not start.
            command.args(["--pdeathsig", "KILL", "/bin/sh", "-c", r#"[ "$PPID" = "$0" ] && exec "$@""#]);
            command.arg(std::process::id().to_string()).stdin(Stdio::null());
            command
        } else {
            let mut command = Command::new("/bin/sh");
            // `$$` stays the process id through `exec`. The subshell ends quietly when it reads a
            // line, which we send after the child is reaped: by then the id may be someone else's.
            command.args(["-c", r#"exec 3<&0; (read -r _ <&3 || kill -9 $$) & exec "$@" 3<&- </dev/null"#, "sh"]);
            command.stdin(Stdio::piped());
            command
        };
        command.arg(program).args(args);
        command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        // A group of its own: Ctrl-C in a terminal goes to the whole foreground group, and must
        // reach only the parent, which stops its children when it has finished with them.
        command.process_group(0);
        let mut child = spawn_from_lasting_thread(command)?;
        let lifeline = child.stdin.take();
        Ok(Process { child, lifeline, status: None })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. The process id is still ours, because nobody else reaps the child.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        match self.ended()? {
            Some(_) => Ok(()),
            None => Ok(kill_process(Pid::from_child(&self.child), signal)?),
        }
    }

    /// The exit status, once the process has ended. Never waits.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
            if self.status.is_some()
                && let Some(mut lifeline) = self.lifeline.take()
            {
                // The subshell may be gone with the child's group; then there is nobody to tell.
                let _ = lifeline.write_all(b"\n");
            }
        }
        Ok(self.status)
    }

    /// SIGKILL, and wait until the process is gone. SIGKILL also ends a stopped process.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::KILL)?;
        let start = Instant::now();
        while self.ended()?.is_none() {
            if start.elapsed() > REAP_WITHIN {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the process does not end"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure.
        let _ = self.kill();
    }
}

type Job = (Command, SyncSender<io::Result<Child>>);

/// Spawns from a thread that lives as long as this process. The death signal is sent when the
/// *thread* that spawned the child ends, and threads of an async runtime come and go.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: Mutex<Option<Sender<Job>>> = Mutex::new(None);

    let gone = || io::Error::other("the thread that starts processes has ended");
    let (reply, answer) = sync_channel(1);
    {
        // Held only to clone or create the sender; the spawning itself happens outside.
        let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
        if spawner.is_none() {
            let (jobs, queue) = channel::<Job>();
            thread::Builder::new().name("spawner".to_owned()).spawn(move || {
                // The static keeps the sender, so this loop never ends.
                for (mut command, reply) in queue {
                    let _ = reply.send(command.spawn());
                }
            })?;
            *spawner = Some(jobs);
        }
        spawner.as_ref().ok_or_else(gone)?.send((command, reply)).map_err(|_| gone())?;
    }
    answer.recv().map_err(|_| gone())?
}

/// Whether `setpriv` exists and knows the option: BusyBox has a `setpriv` that does not.
fn death_signal_is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        cfg!(target_os = "linux")
            && Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "/bin/sh", "-c", "exit 0"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
    })
}
