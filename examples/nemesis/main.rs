//! Breaks everything that can be broken around real servers, for as long as asked, and judges whether the promise was
//! kept: `cargo run --release --example nemesis -- --minutes 10 --seed 7`.
//!
//! A set of three members, two or three servers, readers that hop between them, writers over REST, over WebSockets and
//! past the servers. Which faults come, when and for how long follows from the seed; how they meet the traffic does not,
//! so a seed makes a failure likely again rather than certain. Ends with 1 when a promise was broken.

mod checker;
mod faults;
mod programs;
mod reader;
mod stage;
mod table;
mod traffic;
mod writers;

use std::{
    net::TcpListener,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use faults::{Fault, Victims};
use mongo_replica_set::{Options, ReplicaSet};
use mongodb::{
    Client,
    bson::Document,
    options::{Acknowledgment, CollectionOptions, ReadConcern, WriteConcern},
};
use programs::Program;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use table::{Round, print_table};
use tokio::{sync::Mutex, time::sleep};
use traffic::{Load, Traffic};

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
        let port = free_port()?;
        servers.push(Program::start(&binary, &uri, port, logs.path().join(format!("server-{n}.log"))).await?);
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
        readers: 9,
        pause_between: Duration::from_millis(arguments.pause_millis),
        hop_after: Some(400),
        // About forty histories, however long it goes on: each is continued to the end.
        remember_every: (lasts / 40).max(Duration::from_secs(1)),
        seed,
    };
    let urls = servers.iter().map(|server| server.url.clone()).collect();
    let traffic = Traffic::start(urls, database.collection_with_options::<Document>("messages", concerns), &load);
    let victims = Victims { set, programs: servers, traffic, app_name, fail_point: Mutex::default() };

    let rounds = torment(&victims, lasts, &mut StdRng::seed_from_u64(seed)).await?;

    println!("settling");
    let Victims { set, programs, traffic, .. } = victims;
    let (verdict, ledger, _) = traffic.finish().await;
    let mut peaks = Vec::new();
    for program in &programs {
        peaks.push(program.peak_kib().await);
        program.kill().await;
    }
    print_table(&rounds, &verdict);
    println!("answers to POST by status (0: none): {:?}", ledger.answers);
    println!("peak memory of the servers: {:?} MiB", peaks.iter().map(|kib| kib / 1_024).collect::<Vec<_>>());
    println!("{verdict}");
    if let Some(set) = Arc::into_inner(set) {
        set.stop().await?;
    }
    let is_kept = verdict.is_kept() && verdict.repeated.is_empty();
    if !is_kept {
        println!("the promise was broken (seed {seed}); the servers' logs are in {}", logs.keep().display());
    }
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One round after the other: a fault, sometimes two at once, healing, and how long it took until everything flowed.
async fn torment(victims: &Victims, lasts: Duration, rng: &mut StdRng) -> anyhow::Result<Vec<Round>> {
    let begun = Instant::now();
    let mut rounds = Vec::new();
    if !victims.traffic.flows(1).await {
        victims.traffic.stage.ledger().scandal("nothing flowed although nothing was broken".into());
    }
    while begun.elapsed() < lasts {
        let mut faults = vec![Fault::ALL[rng.random_range(0..Fault::ALL.len())]];
        if rng.random_bool(0.3) {
            faults.push(Fault::ALL[rng.random_range(0..Fault::ALL.len())]);
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
        rounds.push(Round { name, at, recovery });
        sleep(Duration::from_millis(rng.random_range(0..500))).await;
    }
    Ok(rounds)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
