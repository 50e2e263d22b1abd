#!/usr/bin/env bash
# Runs the tour of README.md: exactly the commands that stand there, in a copy of this tree, as a reader would paste them.
#
# The tour lies between two comments, `<!-- tour: begin -->` and `<!-- tour: end -->`. In it, each ```sh block is run, and
# comments, which a reader does not see, say what a reader would do and look for:
#
#   <!-- tour: in 2 -->          the next block runs in terminal 2 and is not waited for
#   <!-- tour: see TEXT -->      the last block printed TEXT
#   <!-- tour: see 2: TEXT -->   terminal 2 shows TEXT, now or soon
#   <!-- tour: stop 2 -->        Ctrl-C in terminal 2; it ends
#   <!-- tour: ended 2 -->       terminal 2 ends by itself
#
# "Soon" is PATIENCE seconds, 300 unless set: the first block builds everything.
#
# Exit code: 0 if everything was seen, 1 if not.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

PATIENCE=${PATIENCE:-300}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/carillon-readme.XXXXXX") || exit 1
copy=$scratch/carillon
running=() # process group of each terminal, by number

cleanup() {
	local group
	for group in "${running[@]}"; do
		[[ -n $group ]] && kill -KILL -- "-$group" 2>/dev/null
	done
	wait 2>/dev/null
	rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
	printf 'README.md:%d: %s\n' "$at" "$1"
	local f
	for f in "$scratch"/output.*; do
		[[ -e $f ]] && { printf -- '--- %s\n' "${f##*/}"; tail -n 40 "$f"; }
	done
	exit 1
}

# poll COMMAND...: waits until the command succeeds.
poll() {
	local end=$((SECONDS + PATIENCE))
	until "$@"; do
		((SECONDS < end)) || return 1
		sleep 0.1
	done
}

has_ended() { ! kill -0 -- "-$1" 2>/dev/null; }

# The tour uses the default ports. Here others are taken, which the first server finds free and the later ones keep.
pin_ports() {
	local port name
	for name in public admin; do
		port=$(sed -n "s/.*\"$name\": \"http:.*:\([0-9]*\)\".*/\1/p" "$copy/data/dev.json")
		[[ -n $port ]] || return
		export "CARILLON_$(tr a-z A-Z <<<"$name")_LISTEN=127.0.0.1:$port"
	done
}

run_block() { # terminal, or nothing
	printf '%s\n' "$block" >"$scratch/block"
	sed 's/^/  $ /' "$scratch/block"
	if [[ -z $1 ]]; then
		(cd "$copy" && bash -e "$scratch/block") >"$scratch/output.last" 2>&1 </dev/null || fail "the block failed"
		return
	fi
	cp "$scratch/block" "$scratch/block.$1"
	set -m
	(cd "$copy" && exec bash -e "$scratch/block.$1") >"$scratch/output.$1" 2>&1 </dev/null &
	running[$1]=$!
	set +m
}

# Everything that is tracked or would be, and nothing that was built.
copy_tree() {
	mkdir -p "$copy" || return 1
	git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' f; do
		if [[ -e $f ]]; then printf '%s\0' "$f"; fi
	done | tar -cf - --null -T - | tar -xf - -C "$copy"
}

at=0
copy_tree || fail 'the tree cannot be copied'
export CARILLON_PUBLIC_LISTEN=127.0.0.1:0 CARILLON_ADMIN_LISTEN=127.0.0.1:0 CARILLON_TCP_LISTEN=127.0.0.1:0
# There is no .git in the copy; there may be one of another project above it.
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"

inside='' in_block='' terminal='' block='' blocks=0
while IFS= read -r line; do
	at=$((at + 1))
	if [[ -n $in_block ]]; then
		if [[ $line != '```' ]]; then
			block+=${block:+$'\n'}$line
			continue
		fi
		run_block "$terminal"
		in_block='' terminal='' block='' blocks=$((blocks + 1))
	elif [[ $line == '<!-- tour: begin -->' ]]; then
		inside=1
	elif [[ $line == '<!-- tour: end -->' ]]; then
		inside=''
	elif [[ -z $inside ]]; then
		:
	elif [[ $line == '```sh' ]]; then
		in_block=1
	elif [[ $line =~ ^'<!-- tour: in '([0-9]+)' -->'$ ]]; then
		terminal=${BASH_REMATCH[1]}
	elif [[ $line =~ ^'<!-- tour: see '([0-9]+)': '(.*)' -->'$ ]]; then
		n=${BASH_REMATCH[1]} text=${BASH_REMATCH[2]}
		poll grep -qF -- "$text" "$scratch/output.$n" || fail "terminal $n does not show: $text"
		if [[ $n == 1 ]]; then pin_ports; fi
	elif [[ $line =~ ^'<!-- tour: see '(.*)' -->'$ ]]; then
		grep -qF -- "${BASH_REMATCH[1]}" "$scratch/output.last" || fail "the block did not print: ${BASH_REMATCH[1]}"
	elif [[ $line =~ ^'<!-- tour: stop '([0-9]+)' -->'$ ]]; then
		n=${BASH_REMATCH[1]}
		kill -INT -- "-${running[$n]}" 2>/dev/null
		poll has_ended "${running[$n]}" || fail "terminal $n does not end at Ctrl-C"
		running[$n]=''
	elif [[ $line =~ ^'<!-- tour: ended '([0-9]+)' -->'$ ]]; then
		n=${BASH_REMATCH[1]}
		poll has_ended "${running[$n]}" || fail "terminal $n has not ended"
		running[$n]=''
	elif [[ $line == '<!-- tour:'* ]]; then
		fail "a comment that says nothing known: $line"
	fi
done <README.md
((blocks > 0)) || fail 'there is no tour'
printf 'the tour of README.md: %d blocks, all as written\n' "$blocks"
