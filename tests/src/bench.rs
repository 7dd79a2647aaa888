//! The scenario benchmarks: each measures over HTTP, on a PostgreSQL with default durability, what the scheduler must
//! hold, and says whether it did.

mod depth;
mod fairness;
mod fleet;
mod history;
mod horizon;
mod idle;
mod limits;
mod load;
mod machine;
mod many_tenants;
mod outage;
mod plane;
mod report;
mod scheduled;
mod shares;
mod stand;
mod urgent;
mod worker;

use clap::{Parser, ValueEnum};
use report::Report;
use stand::Stand;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures what the scheduler must hold.
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// What to measure.
    scenario: Scenario,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Exit with 1 if anything that must hold does not, and name it.
    #[arg(long)]
    check: bool,
    /// The same at a tenth of the size.
    #[arg(long)]
    quick: bool,
    /// How often to measure; medians count. Three times when absent, `horizon` once: it has slices of its own.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// What a tenant waits while another has a backlog, and what each gets of the fleet.
    Fairness,
    /// Whether concurrency limits are exact while workers die, and what they cost.
    Limits,
    /// What a claim costs behind how much that waits.
    Depth,
    /// What becomes of the throughput while a transaction is held open.
    Horizon,
    /// What others notice when a million rows fall due at the same second.
    Scheduled,
    /// What an enqueue and a claim cost with ten thousand active tenants.
    ManyTenants,
    /// What an absence of the control plane does to what was running.
    Outage,
    /// What a worker costs for each job, and when idle.
    Worker,
    /// What a fleet asks for while there is nothing to do, and when the control plane comes back.
    Idle,
    /// All of them, one after the other.
    All,
}

impl Scenario {
    fn name(self) -> String {
        self.to_possible_value().expect("none is hidden").get_name().to_owned()
    }

    /// How often to measure when the command line does not say.
    fn rounds(self) -> u32 {
        if self == Self::Horizon { 1 } else { 3 }
    }

    async fn measure(self, stand: &Stand, report: &mut Report) {
        match self {
            Self::Fairness => fairness::measure(stand, report).await,
            Self::Limits => limits::measure(stand, report).await,
            Self::Depth => depth::measure(stand, report).await,
            Self::Horizon => horizon::measure(stand, report).await,
            Self::Scheduled => scheduled::measure(stand, report).await,
            Self::ManyTenants => many_tenants::measure(stand, report).await,
            Self::Outage => outage::measure(stand, report).await,
            Self::Worker => worker::measure(stand, report).await,
            Self::Idle => idle::measure(stand, report).await,
            Self::All => unreachable!("it stands for the others"),
        }
    }
}

/// Runs the scenario that the command line names.
///
/// # Errors
/// When PostgreSQL does not start or the file of figures cannot be written.
pub async fn main() -> anyhow::Result<ExitCode> {
    if let Some(ended) = idle::fleet().await {
        return ended.map(|()| ExitCode::SUCCESS);
    }
    let options = Options::parse();
    // Whoever waits for a client that has panicked would wait for ever.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::exit(101);
    }));
    let wanted: Vec<Scenario> = Scenario::value_variants()
        .iter()
        .copied()
        .filter(|&each| each != Scenario::All && [each, Scenario::All].contains(&options.scenario))
        .collect();
    let mut stand = Stand::start(options.quick).await?;
    let machine = machine::describe(&stand).await;
    let mut reports = Vec::new();
    for scenario in wanted {
        stand.rounds = options.rounds.unwrap_or(scenario.rounds());
        let mut report = Report::new(&scenario.name(), stand.quick);
        scenario.measure(&stand, &mut report).await;
        report.print(&machine);
        reports.push(report);
    }
    stand.stop()?;
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&machine, &reports))?;
    }
    let missed: Vec<_> = reports.iter().flat_map(Report::missed).collect();
    for line in &missed {
        println!("MISSED  {line}");
    }
    Ok(ExitCode::from(u8::from(options.check && !missed.is_empty())))
}
