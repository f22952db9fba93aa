//! Breaks everything that can be broken around real servers, for as long as asked, and judges whether the promise was
//! kept: `cargo run --release --example nemesis -- --minutes 10 --seed 7`.
//!
//! A set of three members, two or three servers, readers that hop between them, writers over REST, over WebSockets and
//! past the servers. Which faults come, when and for how long follows from the seed; how they meet the traffic does not,
//! so a seed makes a failure likely again rather than certain. Ends with tables, and with 1 when a promise was broken.

mod checker;
mod faults;
mod growth;
mod memory;
mod ports;
mod programs;
mod reader;
mod stage;
mod table;
mod traffic;
mod writers;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use faults::{Deck, Victims};
use growth::{Growth, print_memory};
use memory::MemoryWatch;
use mongo_replica_set::{Options, ReplicaSet};
use mongodb::{
    Client,
    bson::Document,
    options::{Acknowledgment, CollectionOptions, ReadConcern, WriteConcern},
};
use programs::Program;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use table::{Round, print_faults, print_promise};
use tokio::{sync::Mutex, time::sleep};
use traffic::{Load, Traffic};

/// Why a reader may be told to reload although nothing was lost: replays are few, and bounded in events, memory and time.
const RESETS_ALLOWED: [&str; 4] = [
    "too many clients ask for what is long past",
    "too much has happened since the cursor",
    "what followed the cursor could not be read in time",
    "what followed the cursor was read too slowly",
];

/// Faults around real servers, and a verdict
#[derive(Parser)]
struct Arguments {
    /// How long to go on, in minutes
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The same in seconds; wins
    #[arg(long)]
    seconds: Option<f64>,
    /// Which faults come; unset: any
    #[arg(long)]
    seed: Option<u64>,
    /// How many servers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=9))]
    servers: u64,
    /// The average pause of each of the writers, in milliseconds
    #[arg(long, default_value_t = 20)]
    pause_millis: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let lasts = Duration::from_secs_f64(arguments.seconds.unwrap_or(arguments.minutes * 60.0));
    let binary = programs::build()?;
    println!("seed {seed}, {:.0} s, {} servers", lasts.as_secs_f64(), arguments.servers);

    let options = Options { members: 3, test_commands: true, ..Options::default() };
    let set = Arc::new(ReplicaSet::start(options, |sentence| println!("{sentence}")).await?);
    let app_name = "nemesis".to_owned();
    // The heartbeat: a fail point says "not primary" although nothing changed, and no news of a change follows.
    let uri = format!("{}&appName={app_name}&heartbeatFrequencyMS=500", set.uri());
    let logs = tempfile::tempdir()?;
    let mut servers = Vec::new();
    for n in 0..arguments.servers {
        let log = logs.path().join(format!("server-{}.log", n + 1));
        servers.push(Arc::new(Program::start(&binary, &uri, ports::lasting_port()?, log).await?));
    }
    let concerns = CollectionOptions::builder()
        .write_concern(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build())
        .read_concern(ReadConcern::majority())
        .build();
    let database = Client::with_uri_str(set.uri()).await?.database("corriente");
    let load = Load {
        rest_writers: 3,
        socket_writers: 3,
        driver_writers: 2,
        bulk_writers: 0,
        readers: 9,
        pause_between: Duration::from_millis(arguments.pause_millis),
        hop_after: Some(400),
        // About forty histories, however long it goes on: each is continued to the end.
        remember_every: (lasts / 40).max(Duration::from_secs(1)),
        seed,
    };
    let urls = servers.iter().map(|server| server.url.clone()).collect();
    let traffic = Traffic::start(urls, database.collection_with_options::<Document>("messages", concerns), &load);
    let memory = MemoryWatch::start(servers.clone());
    let victims = Victims { set, programs: servers, traffic, app_name, fail_point: Mutex::default() };

    let mut rounds = Vec::new();
    if let Err(broken) = torment(&victims, lasts, &mut StdRng::seed_from_u64(seed), &mut rounds).await {
        // What was seen until then is judged all the same.
        victims.traffic.stage.ledger().scandal(format!("the run was cut short: {broken:#}"));
    }

    println!("settling");
    let settling = Instant::now();
    let Victims { set, programs, traffic, .. } = victims;
    // Before the histories of the whole run are read again, all at once, which no minute of the run does.
    let growths = memory.finish().await;
    let (verdict, ledger, _) = traffic.finish().await;
    let mut peaks_kib = Vec::new();
    for program in &programs {
        peaks_kib.push(program.peak_kib().await);
        program.kill().await;
    }
    if let Some(set) = Arc::into_inner(set) {
        set.stop().await?;
    }

    println!("\n== {} rounds of faults, seed {seed}, {} servers ==\n", rounds.len(), programs.len());
    print_faults(&rounds, settling, &verdict);
    println!();
    print_promise(&verdict, &ledger);
    println!();
    print_memory(&growths, &peaks_kib);
    println!();
    for reset in &verdict.resets {
        println!("reset of {}", reset.words);
    }

    let is_flat = growths.iter().flatten().all(Growth::is_bounded);
    let is_kept =
        verdict.is_kept() && verdict.repeated.is_empty() && verdict.resets_besides(&RESETS_ALLOWED).is_empty();
    if is_kept && is_flat {
        println!("the promise was kept");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{verdict}\n");
    let what = if is_kept { "memory grew without bound" } else { "the promise was broken" };
    println!("{what} (seed {seed}); the servers' logs are in {}", logs.keep().display());
    Ok(ExitCode::FAILURE)
}

/// One round after the other: a fault, sometimes two at once, healing, and how long it took until everything flowed.
async fn torment(victims: &Victims, lasts: Duration, rng: &mut StdRng, rounds: &mut Vec<Round>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut deck = Deck::default();
    if !victims.traffic.flows(1).await {
        victims.traffic.stage.ledger().scandal("nothing flowed although nothing was broken".into());
    }
    while begun.elapsed() < lasts {
        let mut faults = vec![deck.draw(rng)];
        if rng.random_bool(0.3) {
            faults.push(deck.draw(rng));
        }
        let at = Instant::now();
        let (mut one, mut other) = (StdRng::seed_from_u64(rng.random()), StdRng::seed_from_u64(rng.random()));
        let second = async {
            if let Some(fault) = faults.get(1) {
                sleep(Duration::from_millis(other.random_range(0..1_000))).await;
                victims.suffer(*fault, &mut other).await;
            }
        };
        tokio::join!(victims.suffer(faults[0], &mut one), second);
        victims.heal().await?;
        let healed = Instant::now();
        let name = faults.iter().map(|fault| fault.as_str()).collect::<Vec<_>>().join(" + ");
        let recovery = victims.traffic.flows(1).await.then(|| healed.elapsed());
        match recovery {
            Some(recovery) => {
                println!(
                    "{:6.1} s  {name}: recovered in {:.2} s",
                    begun.elapsed().as_secs_f64(),
                    recovery.as_secs_f64()
                );
            }
            None => {
                println!("{:6.1} s  {name}: NOT recovered", begun.elapsed().as_secs_f64());
                victims.traffic.stage.ledger().scandal(format!("after {name} nothing flows any more"));
            }
        }
        rounds.push(Round { faults, at, recovery });
        sleep(Duration::from_millis(rng.random_range(0..500))).await;
    }
    Ok(())
}
