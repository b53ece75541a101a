// SPDX-License-Identifier: GPL-2.0

//! What it costs to use hinted memory again: measured, where it can be.

use kernel::time::{
    Instant,
    Monotonic, //
};

use crate::{
    policy,
    queue, //
};

/// The price of a granule.
pub(crate) struct Price {
    /// What was measured, in nanoseconds, the latest last.
    probes: [Option<u64>; policy::PROBES],
    /// When that was.
    probed: Instant<Monotonic>,
    /// The granule's order then.
    order: u32,
    /// Pages that had been used again by then, since boot.
    reused: u64,
}

impl Price {
    /// Nothing was measured yet.
    pub(crate) fn new() -> Self {
        Self {
            probes: [None; policy::PROBES],
            probed: Instant::now(),
            order: 0,
            reused: 0,
        }
    }

    /// The price of a granule of that order, in nanoseconds.
    pub(crate) fn ns(&self, order: u32) -> u64 {
        if self.order == order {
            policy::price_ns(&self.probes, order)
        } else {
            policy::price_ns(&[], order)
        }
    }

    /// Measures, if there is a reason to: memory was used again since it was measured last, or it
    /// was not often enough.
    ///
    /// Each measurement costs a fault in the host, and a granule that has to be hinted again.
    pub(crate) fn probe(&mut self, order: u32) {
        let stale = queue::reused() != self.reused
            && self.probed.elapsed().as_millis() >= i64::from(policy::PROBE_MS);

        if self.order != order {
            self.order = order;
            self.probes = [None; policy::PROBES];
        } else if !stale && self.probes.iter().all(Option::is_some) {
            return;
        }

        if let Some(ns) = queue::probe() {
            self.probes.rotate_left(1);
            let [.., last] = &mut self.probes;
            *last = Some(ns);
        }
        self.probed = Instant::now();
        self.reused = queue::reused();
    }
}
