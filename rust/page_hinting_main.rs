// SPDX-License-Identifier: GPL-2.0

//! Free page hinting: tells the host which memory of this guest is free.
//!
//! The kernel's part, which owns everything that has to outlive the module, is
//! `mm/page_hinting.c`. Here is decided when to hint, what and how much.
//!
//! Locks are taken in this order: the mutex of [`Shared`], then those of the core, which lists
//! them. The thread holds none of them while it sleeps.

use kernel::{
    new_mutex,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
};

use policy::{
    Knob,
    Knobs, //
};

mod batch;
mod block;
#[cfg(CONFIG_DEBUG_FS)]
mod debug;
mod engine;
mod ffi;
mod flush;
mod knobs;
#[expect(unreachable_pub, reason = "it is a crate of its own on the host")]
#[path = "policy/src/levels.rs"]
mod levels;
#[expect(unreachable_pub, reason = "it is a crate of its own on the host")]
#[path = "policy/src/machine.rs"]
mod machine;
#[expect(unreachable_pub, reason = "it is a crate of its own on the host")]
#[path = "policy/src/policy.rs"]
mod policy;
mod queue;
mod stats;
mod sysfs;
mod thread;
mod trace;
// Some of it is for debugfs alone.
#[cfg_attr(not(CONFIG_DEBUG_FS), allow(dead_code))]
mod zone;

module! {
    type: PageHinting,
    name: "page_hinting",
    authors: ["page_hinting developers"],
    description: "Tells the host which memory of this guest is free",
    license: "GPL",
}

/// Pages to KiB.
fn pages_to_kb(pages: u64) -> u64 {
    pages.saturating_mul(1 << (PAGE_SHIFT - 10))
}

/// What the thread and the readers and writers of sysfs share.
#[pin_data]
struct Shared {
    #[pin]
    knobs: Mutex<Knobs>,
    #[pin]
    flushes: flush::Flushes,
    stats: stats::Stats,
    /// What the host has.
    #[pin]
    engine: engine::Engine,
    /// The thread's, until it starts.
    #[pin]
    machine: Mutex<Option<thread::Machine>>,
    /// While there are any.
    #[pin]
    kobjects: Mutex<Option<knobs::Kobjects>>,
    /// Pages that are kept. Written by the thread alone.
    kept: Atomic<u64>,
    /// [`zone::untagged`] and [`zone::offline_used`] as the module found them.
    untagged_before: u64,
    offline_used_before: u64,
}

impl Shared {
    fn new() -> Result<Arc<Self>> {
        let knobs = default_knobs();
        let machine = thread::new_machine()?;

        Arc::pin_init(
            pin_init!(Self {
                knobs <- new_mutex!(knobs),
                flushes <- flush::Flushes::new(),
                stats: stats::Stats::new(),
                engine <- engine::Engine::new(),
                machine <- new_mutex!(Some(machine)),
                kobjects <- new_mutex!(None),
                kept: Atomic::new(0),
                untagged_before: zone::untagged(),
                offline_used_before: zone::offline_used(),
            }),
            GFP_KERNEL,
        )
    }

    /// The knobs as they are now.
    fn knobs(&self) -> Knobs {
        *self.knobs.lock()
    }

    /// Sets a knob: `EINVAL` and no change if the value is not good.
    fn set(&self, knob: Knob, value: u64) -> Result {
        let mut knobs = self.knobs.lock();

        *knobs = knobs.with(knob, value).map_err(|_| EINVAL)?;
        // The thread waits for the lock, if it is that fast.
        thread::wake();
        Ok(())
    }

    /// Hinted memory that merged with other memory and has to be hinted again, in pages.
    fn untagged(&self) -> u64 {
        zone::untagged().wrapping_sub(self.untagged_before)
    }

    /// Hinted memory that was allocated, in pages.
    fn offline_used(&self) -> u64 {
        zone::offline_used().wrapping_sub(self.offline_used_before)
    }

    /// Hints all that is free, and waits for that.
    ///
    /// `ENODEV` if there is no device or the module goes, `ETIMEDOUT` if the host is too slow,
    /// `ERESTARTSYS` on a signal.
    fn flush(&self) -> Result {
        if !self.engine.state().has_device() {
            return Err(ENODEV);
        }
        zone::drain();
        self.flushes
            .flush(self.knobs().get(Knob::FlushTimeoutMs), thread::wake)
    }

    /// Forgets what the host knows to be free, so that all of it is hinted anew, now or when there
    /// is a device.
    fn rehint(&self) {
        self.stats.rehints.add(1u64, Relaxed);
        engine::forget();
        thread::wake();
    }
}

/// The knobs that the module is loaded with.
fn default_knobs() -> Knobs {
    Knobs::new(zone::MAX_PAGE_ORDER, pages_to_kb(1))
}

/// The loaded module.
///
/// The fields are dropped in this order: first nobody changes a knob or asks for memory any more,
/// then the thread stops and returns what it has isolated, and the device it owns goes back to page
/// reporting.
struct PageHinting {
    #[cfg(CONFIG_DEBUG_FS)]
    _debug: debug::Files,
    _directory: knobs::Directory,
    _notifiers: queue::Notifiers,
    _thread: thread::Thread,
}

impl kernel::Module for PageHinting {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let shared = Shared::new()?;
        let attachment = queue::Attachment::new()?;

        let thread = thread::Thread::start(attachment, shared.clone())?;
        let notifiers = queue::Notifiers::new(shared.clone())?;
        let directory = knobs::Directory::new(shared.clone())?;

        pr_info!(
            "loaded, {}\n",
            if shared.engine.state().has_device() {
                "hinting to the reporting device"
            } else {
                "waiting for a reporting device"
            }
        );
        Ok(Self {
            // Last: if init fails after it, an open file does not keep the module.
            #[cfg(CONFIG_DEBUG_FS)]
            _debug: debug::Files::new(),
            _directory: directory,
            _notifiers: notifiers,
            _thread: thread,
        })
    }
}

impl Drop for PageHinting {
    fn drop(&mut self) {
        pr_info!("unloading\n");
    }
}

#[cfg(page_hinting_kunit)]
#[kunit_tests(page_hinting)]
mod tests {
    use super::*;

    #[test]
    fn sizes_convert() {
        assert_eq!(pages_to_kb(1 << (20 - PAGE_SHIFT)), 1024);
        assert_eq!(default_knobs().kb_to_pages(1024), 1 << (20 - PAGE_SHIFT));
        assert_eq!(pages_to_kb(u64::MAX), u64::MAX);
    }

    #[test]
    fn defaults_fit_this_kernel() {
        let knobs = default_knobs();

        assert_eq!(pages_to_kb(1 << knobs.min_order()), 2048);
        // The largest block fits the smallest batch, so every order can be hinted.
        assert!(1 << zone::MAX_PAGE_ORDER <= knobs.kb_to_pages(policy::BATCH_KB_MIN));
    }

    #[test]
    fn zones_add_up_to_the_guest() {
        let managed = zone::Zone::all().fold(0, |sum, zone| sum + zone.managed());
        // SAFETY: `si` is valid for writes.
        let total = unsafe {
            let mut si = core::mem::zeroed::<kernel::bindings::sysinfo>();
            kernel::bindings::si_meminfo(&mut si);
            si.totalram as u64
        };

        assert_eq!(managed, total);
    }

    #[test]
    fn a_low_is_no_more_than_there_is() {
        let token = thread::InThread::for_test();

        for zone in zone::Zone::all() {
            zone.view(&token, |view| {
                let pages = view.areas(0).map(policy::Unhinted::pages).sum::<u64>();

                assert!(view.eligible_low <= view.eligible);
                assert!(view.eligible <= view.managed);
                assert!(view.unhinted_low <= pages);
            });
        }
    }
}
