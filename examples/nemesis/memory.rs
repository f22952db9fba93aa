//! Samples what each server holds while everything around it breaks.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    growth::{Growth, Sample},
    programs::Program,
};

const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// Samples until it is asked for the judgement.
pub struct MemoryWatch {
    sampling: JoinHandle<Vec<Vec<Sample>>>,
    stop: CancellationToken,
    begun: Instant,
}

impl MemoryWatch {
    pub fn start(programs: Vec<Arc<Program>>) -> Self {
        let stop = CancellationToken::new();
        let begun = Instant::now();
        let sampling = tokio::spawn(sample(programs, begun, stop.clone()));
        Self { sampling, stop, begun }
    }

    /// Ends the sampling. `None` for a server of which nothing is known: not every system tells.
    pub async fn finish(self) -> Vec<Option<Growth>> {
        self.stop.cancel();
        let lasted = self.begun.elapsed();
        let samples = self.sampling.await.expect("the samples");
        samples.into_iter().map(|samples| Growth::of(&samples, lasted)).collect()
    }
}

async fn sample(programs: Vec<Arc<Program>>, begun: Instant, stop: CancellationToken) -> Vec<Vec<Sample>> {
    let mut samples: Vec<Vec<Sample>> = programs.iter().map(|_| Vec::new()).collect();
    while stop.run_until_cancelled(sleep(SAMPLE_EVERY)).await.is_some() {
        for (program, samples) in programs.iter().zip(&mut samples) {
            // One that is just being started or killed has nothing to tell.
            if let Some(resident_kib) = program.pid_now().and_then(|pid| resident_kib(pid, "VmRSS:")) {
                samples.push(Sample { at: begun.elapsed(), resident_kib });
            }
        }
    }
    samples
}

/// A line of what Linux tells of a process's memory; `None` elsewhere.
pub fn resident_kib(pid: u32, line: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse().ok())
}
