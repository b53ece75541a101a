// SPDX-License-Identifier: GPL-2.0

//! Assembling requests for the host.

use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

use crate::{
    block::Isolated,
    machine::Outcome,
    thread::{
        InThread,
        Machine, //
    },
    zone::{
        self,
        Zone, //
    },
    Shared, //
};

/// Hands a request to the host, of what `machine` allows.
pub(crate) fn request(machine: &mut Machine, shared: &Shared, token: &InThread) -> Outcome {
    let (engine, stats) = (&shared.engine, &shared.stats);
    let state = engine.state();

    // The device may have changed to one that takes less.
    if !state.has_device() || state.min_order() > machine.lowest_order() {
        return Outcome::Failed;
    }
    if state.held {
        return Outcome::Held;
    }
    if state.room() == 0 {
        return Outcome::Full;
    }
    let mut request = Isolated::new(state.room(), token);

    fill(&mut request, machine, token);
    engine.taken();
    let pages = request.pages();
    if pages == 0 {
        // More may be had once the host has returned some, or nobody waits for it any more.
        return if state.is_busy() {
            Outcome::Full
        } else if engine.state().held {
            Outcome::Held
        } else {
            Outcome::Nothing
        };
    }
    if engine.state().held {
        return Outcome::Held;
    }

    match engine.submit(request) {
        Ok(()) => {
            stats.requests.add(1u64, Relaxed);
            Outcome::Submitted { pages }
        }
        // Somebody needs the memory now, which is no fault of the device.
        Err(_) if engine.state().held => Outcome::Held,
        // The queue has what the module before this one has left there.
        Err(error) if error == ENOSPC && state.is_busy() => Outcome::Full,
        Err(_) => {
            stats.requests.add(1u64, Relaxed);
            stats.errors.add(1u64, Relaxed);
            Outcome::Failed
        }
    }
}

/// Takes blocks into a request: zone by zone, the highest order first.
fn fill(request: &mut Isolated, machine: &mut Machine, token: &InThread) {
    for zone in Zone::all() {
        for order in (machine.lowest_order()..=zone::MAX_PAGE_ORDER).rev() {
            if request.is_full() {
                return;
            }
            // What was taken changes both; free memory changes anyway.
            let isolated = zone::isolated();
            let pages = zone.view(token, |view| {
                machine.share(zone.slot(), order, view, isolated)
            });

            if pages != 0 {
                let taken = request.take(zone, order, pages);
                machine.took(zone.slot(), taken);
            }
        }
    }
}

/// The unhinted memory of all zones from `min_order` up, in pages, without what is reserved for
/// atomic allocations.
pub(crate) fn backlog(min_order: u32) -> u64 {
    let pages = |zone: Zone| {
        let areas = (min_order..=zone::MAX_PAGE_ORDER)
            .filter_map(|order| Some(zone.area(order)?.unhinted() << order));

        areas
            .fold(0, u64::saturating_add)
            .saturating_sub(zone.reserved())
    };

    Zone::all().map(pages).fold(0, u64::saturating_add)
}
