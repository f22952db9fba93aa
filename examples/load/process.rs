//! What a process costs: the time of its processors and its memory, as the system counts them.

use std::fs;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What one process, or several, have used since they started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Seconds of one processor, in the program and in the kernel for it.
    pub cpu_secs: f64,
    /// Memory in use now.
    pub resident_bytes: u64,
}

/// What this process has used.
pub fn own() -> anyhow::Result<Usage> {
    usage(std::process::id())
}

/// What a process has used.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = stat(pid).with_context(|| format!("process {pid} is not there; /proc is needed, as on Linux"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    Ok(Usage { cpu_secs: stat.cpu_secs, resident_bytes: kib.unwrap_or_default() * 1024 })
}

/// What the children of a process, and theirs, have used: of a server that runs its own MongoDB, the database.
pub fn children_of(pid: u32) -> Usage {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    family[1..].iter().filter_map(|pid| usage(*pid).ok()).fold(Usage::default(), |sum, one| Usage {
        cpu_secs: sum.cpu_secs + one.cpu_secs,
        resident_bytes: sum.resident_bytes + one.resident_bytes,
    })
}

/// Seconds of processors that the whole machine has spent on anything, since it started.
pub fn machine_busy_secs() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, (idle, iowait), irq, softirq, steal
    [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum::<f64>() / ticks_per_sec()
}

/// Lets this process have as many files open as it may, and says how many that are. What it starts inherits that.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // A system that refuses leaves the old limit, which is then the answer.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What the machine is, for a report.
pub fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{}, Linux {}", model.unwrap_or("unknown processor"), kernel.trim())
}

/// How many processors this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

struct Stat {
    parent: u32,
    cpu_secs: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    read_stat(&text, ticks_per_sec())
}

/// Fields 4, 14 and 15 of `/proc/PID/stat`, counted after the name, which may hold anything.
fn read_stat(text: &str, ticks_per_sec: f64) -> Option<Stat> {
    let (_, after_name) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, cpu_secs: (ticks(11)? + ticks(12)?) / ticks_per_sec })
}

fn ticks_per_sec() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_may_hold_anything() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 3 0 1 1 1";
        let stat = read_stat(line, 100.0).unwrap();
        assert_eq!((stat.parent, stat.cpu_secs), (7, 3.0));
        assert!(read_stat("", 100.0).is_none());
    }

    #[test]
    fn this_process_is_seen() {
        let usage = own().unwrap();
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        assert!(machine_busy_secs() >= usage.cpu_secs);
    }
}
