// SPDX-License-Identifier: GPL-2.0

//! Assembling requests: which blocks go to the host next.

use kernel::error::code::EAGAIN;

use crate::{
    block::Isolated,
    kb_to_pages,
    policy::{
        self,
        Knob,
        Knobs,
        Unhinted, //
    },
    queue,
    stats::Stats,
    thread::InThread,
    zone::Zone, //
};

/// What came of [`hint`].
pub(crate) struct Pass {
    /// Something was handed to the host.
    pub(crate) submitted: bool,
    /// The host has all that it may have at a time; there may be more.
    pub(crate) full: bool,
}

/// Hands unhinted memory to the host, until there is none that can be spared or the host has
/// enough.
pub(crate) fn hint(knobs: &Knobs, stats: &Stats, token: &InThread) -> Pass {
    let mut submitted = false;
    let full = loop {
        let state = queue::State::now();
        let ranges = policy::request_ranges(state.capacity(), state.room());

        if !state.has_device() {
            break false;
        }
        if ranges == 0 {
            break true;
        }
        let Some(mut request) = Isolated::new(token) else {
            break true;
        };

        let min_order = knobs.min_order().max(state.min_order());
        fill(&mut request, knobs, min_order, ranges);
        if request.is_empty() {
            // More may be had once the host has returned some.
            break state.in_flight();
        }

        match request.submit() {
            Ok(()) => {
                stats.submitted();
                submitted = true;
            }
            // The blocks are back on the free lists, and found there next time.
            Err(e) => {
                // Somebody needs the memory now, which is no fault of the device.
                if e != EAGAIN {
                    stats.submitted();
                    stats.failed();
                }
                break false;
            }
        }
    };

    Pass { submitted, full }
}

/// Takes blocks into a request: zone by zone, the highest order first.
fn fill(request: &mut Isolated, knobs: &Knobs, min_order: u32, ranges: u32) {
    let batch = kb_to_pages(knobs.get(Knob::BatchKb));
    let low = kb_to_pages(knobs.get(Knob::LowWatermarkKb));

    for zone in Zone::all() {
        let info = zone.info();

        for area in info.unhinted(min_order) {
            if !area.exceeds(low) {
                continue;
            }

            // What was taken changes both; free memory changes anyway.
            let (isolated, _) = queue::isolated();
            let room = zone.info().room();
            let pages = room
                .budget(batch, isolated)
                .min(area.pages().saturating_sub(low));

            request.take(zone, area.order, pages, ranges);
        }
    }
}

/// The unhinted memory of all zones from `min_order` up, in pages.
pub(crate) fn backlog(min_order: u32) -> u64 {
    Zone::all().fold(0, |sum, zone| {
        zone.info()
            .unhinted(min_order)
            .fold(sum, |sum: u64, area| sum.saturating_add(area.pages()))
    })
}

/// Whether any free area has blocks that `condition` asks for, and that its zone can spare.
///
/// A zone that can spare not even one block, as `ZONE_DMA` with its large reserve, is nothing to
/// wake up for.
fn any_area(knobs: &Knobs, min_order: u32, condition: impl Fn(Unhinted) -> bool) -> bool {
    let batch = kb_to_pages(knobs.get(Knob::BatchKb));

    Zone::all().any(|zone| {
        let info = zone.info();
        let room = info.room();
        let mut areas = info.unhinted(min_order);

        areas.any(|area| room.fits(batch, area.order) && condition(area))
    })
}

/// Whether a free area has enough to begin hinting.
pub(crate) fn is_due(knobs: &Knobs, min_order: u32) -> bool {
    let high = kb_to_pages(knobs.get(Knob::HighWatermarkKb));
    let low = kb_to_pages(knobs.get(Knob::LowWatermarkKb));

    any_area(knobs, min_order, |area| {
        area.reaches(high) && area.exceeds(low)
    })
}

/// Whether a free area has more than is left alone.
pub(crate) fn is_left(knobs: &Knobs, min_order: u32) -> bool {
    let low = kb_to_pages(knobs.get(Knob::LowWatermarkKb));

    any_area(knobs, min_order, |area| area.exceeds(low))
}
