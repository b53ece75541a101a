// SPDX-License-Identifier: GPL-2.0

//! Assembling requests for the host.

use kernel::{
    error::code::EAGAIN,
    sync::atomic::Relaxed, //
};

use crate::{
    block::Isolated,
    machine::Outcome,
    policy, queue,
    stats::Stats,
    thread::{
        InThread,
        Machine, //
    },
    zone::{
        self,
        Zone, //
    },
};

/// Hands a request to the host, of what `machine` allows.
pub(crate) fn request(machine: &mut Machine, stats: &Stats, token: &InThread) -> Outcome {
    let state = queue::State::now();
    let ranges = policy::request_ranges(state.capacity, state.room);

    // The device may have changed to one that takes less.
    if !state.has_device() || state.min_order > machine.lowest_order() {
        return Outcome::Failed;
    }
    if ranges == 0 {
        return Outcome::Full;
    }
    let Some(mut request) = Isolated::new(token) else {
        return Outcome::Full;
    };

    fill(&mut request, machine, ranges, token);
    if request.is_empty() {
        // More may be had once the host has returned some, or nobody waits for it any more.
        return if state.in_flight != 0 {
            Outcome::Full
        } else if state.held || queue::State::now().held {
            Outcome::Held
        } else {
            Outcome::Nothing
        };
    }

    let pages = request.pages();
    let result = request.submit();
    if result == Err(EAGAIN) {
        // Somebody needs the memory now, which is no fault of the device.
        return Outcome::Held;
    }
    stats.requests.add(1u64, Relaxed);
    match result {
        Ok(()) => Outcome::Submitted { pages },
        Err(_) => {
            stats.errors.add(1u64, Relaxed);
            Outcome::Failed
        }
    }
}

/// Takes blocks into a request: zone by zone, the highest order first.
fn fill(request: &mut Isolated, machine: &mut Machine, ranges: u32, token: &InThread) {
    for zone in Zone::all() {
        for order in (machine.lowest_order()..=zone::MAX_PAGE_ORDER).rev() {
            // What was taken changes both; free memory changes anyway.
            let (isolated, _) = queue::isolated();
            let pages = zone.view(token, |view| {
                machine.share(zone.slot(), order, view, isolated)
            });

            if pages != 0 {
                let taken = request.take(zone, order, pages, ranges);
                machine.took(zone.slot(), taken);
            }
        }
    }
}

/// The unhinted memory of all zones from `min_order` up, in pages.
pub(crate) fn backlog(min_order: u32) -> u64 {
    let areas = Zone::all().flat_map(|zone| {
        (min_order..=zone::MAX_PAGE_ORDER)
            .filter_map(move |order| Some(zone.area(order)?.unhinted() << order))
    });

    areas.fold(0, u64::saturating_add)
}
