//! The rows of the table in `docs/performance.md`: what each does, and what is asked of us.

use clap::ValueEnum;

use super::{
    flags::{Plan, Rate, Transport, Writers},
    report::{Outcome, count, kilobytes, micros, millis},
};

/// One row of the table, or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// 1,000 readers of one room, 100 messages per second
    #[value(name = "fanout-100")]
    Fanout100,
    /// 1,000 readers, as fast as it goes with every message in MongoDB first
    FanoutMax,
    /// 5,000 readers, 20 messages per second
    #[value(name = "readers-5000")]
    Readers5000,
    /// 64 publishers over HTTP and 1 reader, as fast as it goes
    Publishers,
    /// 10,000 idle WebSockets
    #[value(name = "idle-10000")]
    Idle10000,
    /// Another program inserts 100 messages per second; beside it the bare driver reads its own change stream
    ExternalWriter,
    /// The same with 1,000 readers
    #[value(name = "external-1000")]
    External1000,
    /// 10 to 10,000 readers at 20 messages per second, for the plot of cost against readers
    SweepReaders,
    /// 1,000 readers at 1 to 1,000 messages per second, for the plots against load
    SweepRate,
    /// All rows of the table
    All,
}

/// Something to measure.
#[derive(Debug, Clone)]
pub struct Part {
    pub name: String,
    pub plan: Plan,
    /// Whether the ceiling does the same in the same run.
    /// What is measured in turn with it.
    pub ceiling: Option<Ceiling>,
}

/// What a server can not be faster than.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceiling {
    /// The smallest program that sends as much, without a database: `benches/ceiling`.
    Fanout,
    /// The bare driver in this process, with one `insert_many` of whatever waits at a time, and nobody who reads.
    Inserts,
}

/// One line of the verdict.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub what: &'static str,
    pub ours: String,
    pub ceiling: String,
    pub goal: String,
    /// `None` when it could not be measured.
    pub is_met: Option<bool>,
}

impl Scenario {
    /// The rows, in the order of the table.
    const ROWS: [Scenario; 7] = [
        Scenario::Fanout100,
        Scenario::FanoutMax,
        Scenario::Readers5000,
        Scenario::Publishers,
        Scenario::Idle10000,
        Scenario::ExternalWriter,
        Scenario::External1000,
    ];

    /// What is to be measured. Times, sizes and the transport are those of `base`. There are
    /// ceilings over WebSockets only: the one of readers speaks nothing else, and other servers are measured over Socket.IO.
    pub fn parts(self, base: &Plan) -> Vec<Part> {
        let base = Plan { stuck: 0, idle: 0, bare_stream: false, batch: 1, ..base.clone() };
        let is_websocket = base.transport == Transport::Websocket;
        let (fanout, inserts) = (is_websocket.then_some(Ceiling::Fanout), is_websocket.then_some(Ceiling::Inserts));
        let one = |plan: Plan, ceiling: Option<Ceiling>| {
            let name = self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            vec![Part { name, plan, ceiling }]
        };
        let paced = |readers: usize, per_second: f64| Plan {
            readers,
            rate: Rate::PerSecond(per_second),
            writers: Writers::Http,
            publishers: 8,
            ..base.clone()
        };
        match self {
            Scenario::Fanout100 => one(paced(1_000, 100.0), fanout),
            Scenario::FanoutMax => {
                let (writers, publishers) =
                    if base.transport == Transport::SocketIo { (Writers::Http, 32) } else { (Writers::Websocket, 4) };
                one(Plan { rate: Rate::MAX, writers, publishers, ..paced(1_000, 1.0) }, fanout)
            }
            Scenario::Readers5000 => one(paced(5_000, 20.0), fanout),
            Scenario::Publishers => one(Plan { rate: Rate::MAX, publishers: 64, ..paced(1, 1.0) }, inserts),
            Scenario::Idle10000 => {
                let quiet = Plan { idle: 10_000, writers: Writers::None, warmup_seconds: 0.0, ..paced(0, 1.0) };
                one(quiet, fanout)
            }
            Scenario::ExternalWriter => {
                one(Plan { writers: Writers::Mongodb, bare_stream: true, ..paced(1, 100.0) }, None)
            }
            Scenario::External1000 => one(Plan { writers: Writers::Mongodb, ..paced(1_000, 100.0) }, None),
            Scenario::SweepReaders => {
                let sizes = [10, 100, 1_000, 3_000, 10_000];
                let part = |readers| Part {
                    name: format!("sweep-readers-{readers}"),
                    plan: paced(readers, if readers > 3_000 { 5.0 } else { 20.0 }),
                    ceiling: fanout,
                };
                sizes.map(part).into()
            }
            Scenario::SweepRate => {
                let rates = [1, 10, 50, 100, 200, 400, 1_000];
                let part = |rate| Part {
                    name: format!("sweep-rate-{rate}"),
                    plan: Plan { publishers: 64, ..paced(1_000, f64::from(rate)) },
                    ceiling: fanout,
                };
                rates.map(part).into()
            }
            Scenario::All => Self::ROWS.iter().flat_map(|row| row.parts(&base)).collect(),
        }
    }

    /// What a part was to show, by its name.
    pub fn verdicts(part: &str, ours: &Outcome, ceiling: Option<&Outcome>) -> Vec<Verdict> {
        let p50 = ours.median(|run| Some(run.delay?.p50_ms));
        let p99 = ours.median(|run| Some(run.delay?.p99_ms));
        let ceiling_of = |of: fn(&super::run::Measured) -> Option<f64>| ceiling.and_then(|outcome| outcome.median(of));
        let ceiling_p99 = ceiling_of(|run| Some(run.delay?.p99_ms));
        let at_most = |what, is: Option<f64>, goal: f64, ceiling: Option<f64>, text: fn(f64) -> String| Verdict {
            what,
            ours: is.map_or("-".into(), text),
            ceiling: ceiling.map_or("-".into(), text),
            goal: format!("<= {}", text(goal)),
            is_met: is.map(|is| is <= goal),
        };
        let at_least = |what, is: Option<f64>, goal: f64, ceiling: Option<f64>| Verdict {
            what,
            ours: is.map_or("-".into(), count),
            ceiling: ceiling.map_or("-".into(), count),
            goal: format!(">= {}", count(goal)),
            is_met: is.map(|is| is >= goal),
        };
        match part {
            "fanout-100" => {
                let cost = ceiling_of(|run| run.server_micros_per_delivery);
                vec![
                    at_most(
                        "server CPU per delivery",
                        ours.median(|run| run.server_micros_per_delivery),
                        cost.map_or(9.0, |cost| 1.1 * cost),
                        cost,
                        micros,
                    ),
                    at_most("delay p99, ms", p99, 20.0, ceiling_p99, millis),
                ]
            }
            "fanout-max" => vec![at_least(
                "deliveries per second",
                ours.median(|run| Some(run.deliveries_per_second)),
                1_500_000.0,
                ceiling_of(|run| Some(run.deliveries_per_second)),
            )],
            "readers-5000" => vec![at_most("delay p99, ms", p99, 60.0, ceiling_p99, millis)],
            "publishers" => vec![
                at_least(
                    "accepted per second",
                    ours.median(|run| Some(run.accepted_per_second)),
                    18_000.0,
                    ceiling_of(|run| Some(run.accepted_per_second)),
                ),
                at_most(
                    "acknowledged p50, ms",
                    ours.median(|run| Some(run.ack?.p50_ms)),
                    4.0,
                    ceiling_of(|run| Some(run.ack?.p50_ms)),
                    millis,
                ),
                at_most("server CPU per message", ours.median(|run| run.server_micros_per_message), 40.0, None, micros),
            ],
            "idle-10000" => vec![at_most(
                "memory per connection",
                ours.median(|run| run.bytes_per_connection),
                4.0 * 1_024.0,
                ceiling_of(|run| run.bytes_per_connection),
                kilobytes,
            )],
            "external-writer" => {
                let bare = |of: fn(super::stats::Percentiles) -> f64| ours.median(|run| run.bare_delay.map(of));
                let above = |bare: Option<f64>| bare.map_or(f64::NAN, |bare| bare + 0.5);
                let (bare_p50, bare_p99) = (bare(|p| p.p50_ms), bare(|p| p.p99_ms));
                vec![
                    at_most("delay p50, ms (bare driver)", p50, above(bare_p50), bare_p50, millis),
                    at_most("delay p99, ms (bare driver)", p99, above(bare_p99), bare_p99, millis),
                ]
            }
            "external-1000" => vec![at_most("delay p99, ms", p99, 25.0, None, millis)],
            _ => Vec::new(),
        }
    }
}

/// The verdicts of all parts, as a table.
pub fn verdict_table(rows: &[(String, Vec<Verdict>)]) -> String {
    let mut table = format!("{:<16}{:<30}{:>14}{:>14}{:>16}  met\n", "scenario", "", "ours", "ceiling", "goal");
    for (name, verdicts) in rows {
        for verdict in verdicts {
            let Verdict { what, ours, ceiling, goal, is_met } = verdict;
            let met = match is_met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "?",
            };
            table.push_str(&format!("{name:<16}{what:<30}{ours:>14}{ceiling:>14}{goal:>16}  {met}\n"));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{flags::Flags, run::Measured};

    fn base() -> Plan {
        Flags::parse_from(["load", "--seconds", "7"]).plan
    }

    #[test]
    fn every_row_has_something_to_measure_and_to_judge() {
        let parts = Scenario::All.parts(&base());
        assert_eq!(parts.len(), Scenario::ROWS.len());
        for part in parts {
            assert_eq!(part.plan.seconds, 7.0);
            let outcome = Outcome {
                name: part.name.clone(),
                subject: "us".into(),
                plan: part.plan,
                runs: vec![Measured::default()],
            };
            assert!(!Scenario::verdicts(&part.name, &outcome, None).is_empty(), "{}", part.name);
        }
    }

    #[test]
    fn a_goal_is_a_ratio_where_there_is_a_ceiling() {
        let outcome = |cost| Outcome {
            name: "fanout-100".into(),
            subject: "us".into(),
            plan: base(),
            runs: vec![Measured { server_micros_per_delivery: Some(cost), ..Measured::default() }],
        };
        let met = |ours, ceiling| Scenario::verdicts("fanout-100", &outcome(ours), Some(&outcome(ceiling)))[0].is_met;
        assert_eq!(met(10.9, 10.0), Some(true));
        assert_eq!(met(11.1, 10.0), Some(false));
    }
}
