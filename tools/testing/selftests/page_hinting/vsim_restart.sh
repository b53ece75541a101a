#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The guest reboots while the module waits for a host that does not answer. This runs
# twice, before and after ("again"): the shutdown does not wait for the host.

. "$(dirname "$0")/lib.sh"

stall_the_module() {
	set_reporting_delay 600000 && plug && load_fresh && wait_settled && stall
}

restart_while_silent "$1" stall_the_module
run_tests test_restarts_and_hints
