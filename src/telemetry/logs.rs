//! Where log lines go, and how they look.
//!
//! What fails is logged once, where it is handled, and what fails in handling a request within the span of that request, so
//! that the line has its id. In an outage that would be a line for every request: [`Repeats`] lets the first lines of
//! each kind through, and then says how many there were.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    collections::HashMap,
    fmt,
    io::{IsTerminal, stderr},
    panic,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    error,
    field::{Field, Visit},
    info, warn,
};
use tracing_subscriber::{
    EnvFilter, Layer, fmt as lines,
    layer::{Context, Filter, SubscriberExt},
    util::SubscriberInitExt,
};

/// What is logged when nobody asks for anything else. The driver and Poem are quiet: what goes wrong there is logged
/// where we handle it.
pub const DEFAULT_LOG: &str = "warn,corriente=info";

/// How many lines of one kind are let through in so many seconds. A kind is a place in the code.
const LINES_MAX: u32 = 5;
const WINDOW_SECS: u64 = 10;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

/// Which log lines are written, in the directives of `EnvFilter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = if text.trim().is_empty() { DEFAULT_LOG } else { text };
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("{error}; write levels like `warn,corriente=debug`")),
        }
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sends log lines to stderr: stdout is for the two lines that programs read. Panics are lines too. What is returned must
/// run, so that what was left out is told.
pub fn start_logging(format: LogFormat, filter: &LogFilter) -> Repeats {
    let repeats = Repeats::default();
    // It was parsed before.
    let wanted = EnvFilter::try_new(&filter.0).unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let layer = lines::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    let layer = match format {
        LogFormat::Text => layer.with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    // A second call keeps the first one's subscriber.
    let _ = tracing_subscriber::registry().with(wanted).with(layer.with_filter(repeats.clone())).try_init();
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let trace = Backtrace::capture();
        let trace = if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
        error!(place, "panicked: {}{trace}", panic.payload_as_str().unwrap_or("without words"));
    }));
    repeats
}

/// Lets the first lines of each kind through, counts the others, and says how many there were. Debug lines are all let
/// through: somebody has asked for them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Repeats(Arc<Mutex<HashMap<Identifier, Kind>>>);

/// The lines of one place in the code.
#[derive(Debug)]
struct Kind {
    window_began: Instant,
    shown: u32,
    left_out: u64,
    level: Level,
    /// The first of those that were left out.
    example: String,
}

impl Repeats {
    /// Says every ten seconds what was left out. Runs for ever.
    pub async fn run(self) {
        let mut ticks = interval(Duration::from_secs(WINDOW_SECS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell();
        }
    }

    /// Says now what was left out.
    pub fn tell(&self) {
        let mut told = Vec::new();
        {
            let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for kind in kinds.values_mut().filter(|kind| kind.left_out > 0) {
                told.push((kind.level, std::mem::take(&mut kind.left_out), std::mem::take(&mut kind.example)));
            }
        }
        // Without the lock: these lines come by here, too.
        for (level, left_out, example) in told {
            match level {
                Level::ERROR | Level::WARN => {
                    warn!(left_out, "left out {left_out} more lines like this one: {example}")
                }
                _ => info!(left_out, "left out {left_out} more lines like this one: {example}"),
            }
        }
    }

    fn lets_through(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == module_path!() {
            return true;
        }
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let kind = kinds.entry(metadata.callsite()).or_insert_with(|| Kind {
            window_began: now,
            shown: 0,
            left_out: 0,
            level: *metadata.level(),
            example: String::new(),
        });
        if now.duration_since(kind.window_began) >= Duration::from_secs(WINDOW_SECS) {
            (kind.window_began, kind.shown) = (now, 0);
        }
        if kind.shown < LINES_MAX {
            kind.shown += 1;
            return true;
        }
        if kind.left_out == 0 {
            kind.example = message_of(event);
        }
        kind.left_out += 1;
        false
    }
}

impl<S: Subscriber> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.lets_through(event)
    }
}

/// The words of a line, without its fields.
fn message_of(event: &Event<'_>) -> String {
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}

/// Lets a line through at the 1st, 2nd, 4th, 8th... time: for what may happen a million times over a day.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// How often this has happened, if that is worth a line now.
    pub fn count(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        count.is_power_of_two().then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing::{debug, subscriber::with_default};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_storm_is_some_lines_and_a_number_and_hides_nothing_else() {
        let (written, repeats) = (Written::default(), Repeats::default());
        let layer = lines::layer().with_writer(written.clone()).with_ansi(false).without_time();
        with_default(tracing_subscriber::registry().with(layer.with_filter(repeats.clone())), || {
            for n in 0..1_000 {
                warn!("the {n}th failure");
                debug!("detail {n}");
            }
            error!("something else");
            repeats.tell();
            repeats.tell();
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let count = |words: &str| text.lines().filter(|line| line.contains(words)).count();
        assert_eq!(count("th failure"), LINES_MAX as usize + 1, "{text}");
        assert_eq!(count("left out 995 more lines like this one: the 5th failure"), 1, "{text}");
        assert_eq!((count("something else"), count("detail")), (1, 1_000));
        assert!(text.lines().filter(|line| line.contains("left out")).all(|line| line.contains("WARN")), "{text}");
    }

    #[test]
    fn directives_that_are_none_are_named() {
        assert_eq!("".parse::<LogFilter>().unwrap().to_string(), DEFAULT_LOG);
        assert_eq!("debug,mongodb=off".parse::<LogFilter>().unwrap().to_string(), "debug,mongodb=off");
        assert!("corriente=loud".parse::<LogFilter>().unwrap_err().contains("write levels like"));
    }
}
