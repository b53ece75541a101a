// SPDX-License-Identifier: GPL-2.0

//! A guest in virtual time: what it allocates and frees, its memory, and who hints it.

use crate::hinter::Hinter;
use crate::load::Load;
use crate::memory::Memory;
use serde::Serialize;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MS;

/// How long things take, in nanoseconds per granule.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Host {
    pub name: &'static str,
    /// To touch a granule that the host has memory behind.
    pub touch_ns: u64,
    /// How much longer it takes if the host has to provide the memory: the price of a refault.
    pub refault_ns: u64,
    /// To free a granule.
    pub free_ns: u64,
    /// For the host to acknowledge a granule.
    pub ack_ns: u64,
}

impl Host {
    /// A guest without KVM. Measured: it touches 512 MiB in 640 ms, 190 ms more if they are
    /// Offline, frees them in 30 ms, and has a hint of 2 GiB acknowledged in 20 ms.
    pub const TCG: Self = Self {
        name: "TCG",
        touch_ns: 2_500_000,
        refault_ns: 742_000,
        free_ns: 117_000,
        ack_ns: 20_000,
    };

    /// What a guest with KVM and huge pages in the host is taken to be like; not measured.
    pub const KVM: Self = Self {
        name: "KVM",
        touch_ns: 150_000,
        refault_ns: 260_000,
        free_ns: 10_000,
        ack_ns: 20_000,
    };

    pub fn hint_ns(&self, granules: u64) -> u64 {
        self.ack_ns * granules
    }
}

/// Runs a load from its first step to its end. A step comes later than written by `refault_ns`
/// for each granule of Offline memory that was allocated before it. `watch` is told how the memory
/// was, and from when to when. Returns the granules that the guest did not get, and whether all
/// steps were done.
pub fn run(
    load: &Load,
    memory: &mut Memory,
    hinter: &mut dyn Hinter,
    refault_ns: u64,
    watch: &mut dyn FnMut(u64, u64, &Memory),
) -> (u64, bool) {
    let mut steps = load.steps.iter().peekable();
    let (mut now, mut denied) = (0, 0);

    loop {
        let lag = memory.offline_used() * refault_ns;
        let step = steps.peek().map_or(u64::MAX, |step| step.at + lag);
        let next = step.min(hinter.due()).clamp(now, load.until);

        if next > now {
            watch(now, next, memory);
            now = next;
        }
        if now >= load.until {
            return (denied, steps.peek().is_none());
        }
        if hinter.due() <= now {
            hinter.act(now, memory);
        } else if let Some(step) = steps.next() {
            let granules = step.granules.unsigned_abs();

            if step.granules > 0 {
                denied += granules - memory.allocate(step.object, granules);
            } else {
                memory.release(step.object, granules);
                hinter.freed(now, memory);
            }
        }
    }
}
