// SPDX-License-Identifier: GPL-2.0

//! The figure of merit: what hinting costs over what it costs an optimum that knows the future.

use crate::guest::{self, Host, SECOND};
use crate::hinter::Kind;
use crate::load::Load;
use crate::memory::{Memory, gib_s, mib};
use crate::meter::{Meter, WORTH_NAMES, WORTHS};
use serde::Serialize;
use std::fmt::Write;

/// What a hinter did for a load.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub workload: String,
    pub hinter: String,
    /// In refaults of a granule, for each of [`WORTHS`].
    pub cost: [f64; WORTHS.len()],
    pub optimum: [f64; WORTHS.len()],
    /// Granules that were refaulted after their first use.
    pub refaults: u64,
    /// The integral of the memory that was used before and is free, and of what the host did not
    /// have of it.
    pub free_gib_s: f64,
    pub kept_gib_s: f64,
    pub hinted_gib: f64,
    /// Offline memory that was used, its first use included.
    pub offline_used_gib: f64,
    /// The most that was in use at a time, and what the host had behind the guest on average.
    pub peak_mib: f64,
    pub resident_mib: f64,
    /// All of the load was done before the end.
    pub done: bool,
}

impl Row {
    /// Whether the load asks for no decision: nothing that it freed was used again.
    fn is_free(&self) -> bool {
        self.optimum.iter().any(|optimum| *optimum < 1.0)
    }

    pub fn ratio(&self, worth: usize) -> f64 {
        self.cost[worth] / self.optimum[worth]
    }
}

/// Runs a load under a hinter. `refault_ns` is how much a refault delays the load.
pub fn play(host: &Host, load: &Load, kind: Kind, bypass_permille: u64, refault_ns: u64) -> Row {
    let mut memory = Memory::offline(&load.zones, bypass_permille);
    let mut meter = Meter::default();
    let mut hinter = kind.build(host, &load.zones);
    let (denied, done) = guest::run(
        load,
        &mut memory,
        &mut *hinter,
        refault_ns,
        &mut |from, to, memory| meter.watch(from, to, memory),
    );

    assert_eq!(denied, 0, "{} under {}", load.name, kind.name());
    Row {
        workload: load.name.clone(),
        hinter: kind.name(),
        cost: meter.cost(&memory),
        optimum: meter.optimum,
        refaults: meter.refaults(&memory),
        free_gib_s: gib_s(meter.free),
        kept_gib_s: gib_s(meter.kept),
        hinted_gib: memory.hinted as f64 / mib(1024) as f64,
        offline_used_gib: memory.offline_used() as f64 / mib(1024) as f64,
        peak_mib: meter.most as f64 / mib(1024) as f64 * 1024.0,
        resident_mib: gib_s(meter.in_use + meter.kept) * 1024.0
            / (load.until as f64 / SECOND as f64),
        done,
    }
}

/// Every load under every hinter, one load after the other. The load is never delayed, so that
/// all hinters and the optimum have the same.
pub fn compare(host: &Host, loads: &[Load], kinds: &[Kind], bypass_permille: u64) -> Vec<Row> {
    let cases = loads
        .iter()
        .flat_map(|load| kinds.iter().map(move |kind| (load, *kind)));

    cases
        .map(|(load, kind)| play(host, load, kind, bypass_permille, 0))
        .collect()
}

/// The number of loads, and the geometric mean and the worst of a hinter's ratios over those that
/// ask for a decision.
pub fn summary(rows: &[Row], hinter: &str, worth: usize) -> (usize, f64, f64) {
    let ratios: Vec<f64> = rows
        .iter()
        .filter(|row| row.hinter == hinter && !row.is_free())
        .map(|row| row.ratio(worth))
        .collect();
    let mean = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64;

    (
        ratios.len(),
        mean.exp(),
        ratios.iter().copied().fold(0.0, f64::max),
    )
}

/// The hinters of some rows, in their order.
pub fn hinters(rows: &[Row]) -> Vec<&str> {
    let first = rows.chunk_by(|a, b| a.workload == b.workload).next();

    first
        .into_iter()
        .flatten()
        .map(|row| row.hinter.as_str())
        .collect()
}

/// For each load and hinter: the ratio where memory is worth 1 s, what was returned, and what share
/// of a CPU waited for refaults.
pub fn table(rows: &[Row], host: &Host, seconds: &dyn Fn(&str) -> f64) -> String {
    // Writing to a String does not fail.
    let mut text = format!("{:<24}", "workload");
    for hinter in hinters(rows) {
        let _ = write!(text, " {hinter:>23}");
    }
    for rows in rows.chunk_by(|a, b| a.workload == b.workload) {
        let _ = write!(text, "\n{:<24}", rows[0].workload);
        for row in rows {
            let cpu = (row.refaults * host.refault_ns) as f64 / 1e7 / seconds(&row.workload);
            let returned = 100.0 * (1.0 - row.kept_gib_s / row.free_gib_s.max(1e-9));
            let ratio = match row.is_free() {
                true => "-".into(),
                false => format!("{:.2}", row.ratio(1)),
            };
            let _ = write!(text, " {ratio:>7} {returned:>5.1} % {cpu:>5.2} %");
        }
    }
    text + "\n"
}

/// The geometric mean and the worst of each hinter, for each worth.
pub fn summary_table(rows: &[Row]) -> String {
    let mut text = format!("{:<24}", "cost / optimum");
    for worth in WORTH_NAMES {
        let _ = write!(text, " {worth:>15}");
    }
    for hinter in hinters(rows) {
        let _ = write!(text, "\n{hinter:<24}");
        for worth in 0..WORTHS.len() {
            let (_, mean, worst) = summary(rows, hinter, worth);
            let _ = write!(text, " {mean:>6.2} ({worst:>6.2})");
        }
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;

    #[test]
    fn the_module_is_near_the_optimum() {
        for host in [Host::KVM, Host::TCG] {
            let loads = load::all(&host, 1);
            for (bypass, mean_max, worst_max) in [(0, 1.2, 2.5), (50, 1.6, 5.0)] {
                let rows = compare(&host, &loads, &[Kind::DEFAULT], bypass);
                let (n, mean, worst) = summary(&rows, &Kind::DEFAULT.name(), 1);

                assert_eq!(n, 28);
                assert!(
                    mean <= mean_max && worst <= worst_max,
                    "{}, {bypass} permille: {mean:.3} ({worst:.2})",
                    host.name
                );
            }
        }
    }

    /// What the incumbent costs, so that a fault of the model is not taken for a merit.
    #[test]
    fn page_reporting_costs_twice_the_optimum() {
        let loads = load::all(&Host::KVM, 1);
        let kind = Kind::Reporting(2000);
        let rows = compare(&Host::KVM, &loads, &[kind], 0);
        let (_, mean, worst) = summary(&rows, &kind.name(), 1);

        assert!(
            (2.0..2.6).contains(&mean) && worst > 5.0,
            "{mean:.2} ({worst:.2})"
        );
    }
}
