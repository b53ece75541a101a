#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The state of a guest is saved while memory is used, freed and hinted, and loaded
# again later, when more was hinted and other memory was used: nothing is lost, what
# was in memory is there again, and hinting goes on by itself.

. "$(dirname "$0")/lib.sh"

# The host has to bring its own side back as well before the guest runs as before.
GOES_ON=30

test_loads_what_was_saved() {
	local said

	before_the_host_acts 128 || return
	use_memory
	hints_more 128 || return
	# The answer comes twice: when it is saved, and from there once more when it is loaded.
	said=$(host savevm test) || return
	if [ "$said" != loaded ]; then
		# What zerocheck holds goes, and other contents come to its memory.
		contents_are_right && memhog -t 192 && hints_more 256 || return
		host loadvm test
		fail "the guest is not what was saved"
		return
	fi
	hints_more 128 goes_on && contents_are_right
}

test_nothing_is_lost() {
	all_is_there_again
}

run_tests \
	test_loads_what_was_saved \
	test_nothing_is_lost
