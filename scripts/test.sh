#!/usr/bin/env bash
# Everything that must hold before a change lands, in one command, on a laptop and in CI alike.
#
#   scripts/test.sh                every step
#   scripts/test.sh vet race       only these
#   scripts/test.sh engines        the SDK for JavaScript in Firefox and WebKit, which is no part of "every step"
#
# Each step writes to a log of its own under bin/test-logs, which is shown when the step fails; a failed step does not keep
# the later ones from running. The last line counts steps and tests. Exit code: 0 all passed, 1 one failed, 2 usage,
# 130 interrupted.
#
# From the environment (the Makefile sets them): GO, FUZZTIME, FAILPOINT_PACKAGES, SEEDS, FIRST_SEED. TORTURE: how long things are broken; 60s.
# TORTURE_SEED: what the faults are drawn from; 1.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

GO=${GO:-go}
FUZZTIME=${FUZZTIME:-10s}
FAILPOINT_PACKAGES=${FAILPOINT_PACKAGES:-./server/gateway/...}
SEEDS=${SEEDS:-500}
FIRST_SEED=${FIRST_SEED:-1}
# Programs that the tests of steps race and failpoints need on Linux, each with the Debian package that it comes in.
NEEDED=(ip:iproute2 ss:iproute2 iptables:iptables)
# What Redis is in step torture.
FORMS=(embedded standalone sentinel cluster)
# What tasks are tormented on there.
PUSH_FORMS=(embedded standalone)
# Build tags that some packages have files of.
TAGS=(failpoints planted nextversion)
ALL_STEPS=(format tidy generated js browser vet staticcheck race failpoints simulate planted torture readme fuzz)
# Steps that run when they are named, and not by themselves.
OTHER_STEPS=(engines)

# ---- the steps: each is a function that exits with 0 if all is well -------------------------------------------------

step_format() {
	local files
	files=$(gofmt -l server) || return 1
	[[ -z $files ]] && return 0
	printf 'not formatted (make fmt mends it):\n%s\n' "$files"
	return 1
}

step_tidy() {
	$GO mod tidy -diff && return 0
	echo 'go.mod or go.sum is not what `go mod tidy` would write'
	return 1
}

# Generates in a copy, so that neither uncommitted work nor a clean clone is touched.
step_generated() {
	local copy=$scratch/generated
	rm -rf "$copy" && mkdir -p "$copy/before" || return 1
	# A file that is listed but deleted from the tree is nothing to compare.
	git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' f; do
		if [[ -e $f ]]; then printf '%s\0' "$f"; fi
	done >"$copy/files" || return 1
	tar -cf - --null -T "$copy/files" | tar -xf - -C "$copy/before" || return 1
	cp -R "$copy/before" "$copy/after" || return 1
	(cd "$copy/after" && GOFLAGS="${GOFLAGS:-} -buildvcs=false" $GO generate ./...) || return 1
	diff -ru "$copy/before" "$copy/after" && return 0
	echo 'generated code differs from what is checked in (make generate mends it)'
	return 1
}

# The SDK for JavaScript: its types, its tests on a clock of their own, those of what step browser judges it with, and what its users get: the package, its
# size, its public surface, its reference, and the types of what the documentation shows.
step_js() {
	need_js || return 1
	(
		cd clients/js || exit 1
		failed=0
		npx tsc -p . || failed=1
		npx vitest run --project unit --project kit --reporter ./test/kit/reporter.ts || failed=1
		npm run --silent build || exit 1
		npx publint --strict || failed=1
		npx attw --pack . || failed=1
		for script in size api docs; do
			npm run --silent "$script" -- --check || failed=1
		done
		node scripts/demo.mjs --check || failed=1
		node scripts/snippets.mjs || failed=1
		exit $failed
	)
}

# The same SDK against the real gateway: from Node over each transport, and in Chromium with its tabs, its network and its storage.
step_browser() {
	need_js && need_chromium || return 1
	(cd clients/js && npx vitest run --project integration --project browser --reporter ./test/kit/reporter.ts)
}

# And in browsers that are no Chromium.
step_engines() {
	need_js && need_engines || return 1
	(cd clients/js && npx vitest run --project engines --reporter ./test/kit/reporter.ts)
}

step_vet() {
	local os tag failed=0
	for os in linux darwin windows; do
		echo "GOOS=$os"
		GOOS=$os $GO vet ./... || failed=1
	done
	for tag in "${TAGS[@]}"; do
		echo "with $tag"
		# shellcheck disable=SC2046 # a list of packages
		$GO vet -tags "$tag" $(tagged "$tag") || failed=1
	done
	return $failed
}

step_staticcheck() {
	local tag failed=0
	$GO tool staticcheck ./... || failed=1
	for tag in "${TAGS[@]}"; do
		# shellcheck disable=SC2046 # a list of packages
		$GO tool staticcheck -tags "$tag" $(tagged "$tag") || failed=1
	done
	return $failed
}

# The packages that have files of a build tag, and those that import one of them: the others are the same with it and without.
tagged() {
	local dir own
	own=$(grep -rlE "^//go:build ([^ ]+ )*!?$1( |\$)" --include='*.go' server | xargs -n1 dirname | sort -u)
	{
		printf '%s\n' "$own"
		for dir in $own; do
			grep -rlF "\"carillon/$dir\"" --include='*.go' server | xargs -r -n1 dirname
		done
	} | sort -u | sed 's|^|./|'
}

step_race() {
	if [[ $($GO env GOOS) == linux ]] && ! command -v "$($GO env CC)" >/dev/null; then
		echo "the race detector needs a C compiler; none found as '$($GO env CC)' (install gcc or clang)"
		return 1
	fi
	provide_needed && need_redis || return 1
	# Twice as many packages at once as there are processors: many of their tests wait for a time to pass in other processes.
	$GO test -race -shuffle=on -v -p $((2 * $(getconf _NPROCESSORS_ONLN))) ./... || return 1
	# Once more for what holds connections in another way where there is no epoll.
	$GO test -race -shuffle=on -v ./server/gateway -engine goroutine
}

# The crash tests kill and restart real servers. They run without the race detector, on the binary as it is released but
# for the failpoints. Some run the next version's binary beside it: that it reads what this one stored is tested as the next version.
step_failpoints() {
	provide_needed && need_redis || return 1
	$GO test -tags nextversion -count=1 -v ./server/saver || return 1
	# shellcheck disable=SC2086 # a list of patterns
	$GO test -tags failpoints -count=1 -timeout 15m -v $FAILPOINT_PACKAGES
}

# Whole worlds on a virtual clock, each driven by a seed. Without the race detector, under which timers of such a clock crash
# Go's runtime now and then.
step_simulate() {
	$GO test -count=1 -timeout 60m -v -run '^TestSimulation' ./server/simulation -seeds "$SEEDS" -first-seed "$FIRST_SEED"
}

# The bugs that the simulation has to find, one after the other, and those that it takes a real Redis to find.
step_planted() {
	need_redis || return 1
	$GO test -tags planted -count=1 -timeout 30m -v -run '^TestPlanted' ./server/planted ./server/simulation ./server/saver/... ./server/gateway
}

# Real processes on a real store in each of its forms, while both are broken. A minute is for what breaks at once; `make torture` is for the
# rest, and for other faults than those of one seed. The forms go side by side: mostly they wait for each other's timeouts.
step_torture() {
	local form failed=0 pids=()
	need_redis || return 1
	$GO build -o "$scratch/carillon" ./server/cmd/carillon || return 1
	$GO build -o "$scratch/torture" ./server/cmd/torture || return 1
	$GO build -o "$scratch/pushes" ./server/cmd/pushes || return 1
	for form in "${PUSH_FORMS[@]}"; do
		"$scratch/pushes" -binary "$scratch/carillon" -users "${USERS:-20000}" -kills "${KILLS:-3}" -form "$form" -seed "${TORTURE_SEED:-1}" \
			>"$scratch/pushes-$form" 2>&1 &
		pids+=($!)
	done
	for form in "${FORMS[@]}"; do
		"$scratch/torture" -binary "$scratch/carillon" -length "${TORTURE:-60s}" -form "$form" -seed "${TORTURE_SEED:-1}" \
			>"$scratch/torture-$form" 2>&1 &
		pids+=($!)
	done
	for form in "${!pids[@]}"; do
		wait "${pids[form]}" || failed=1
	done
	for form in "${FORMS[@]}"; do
		cat "$scratch/torture-$form"
	done
	for form in "${PUSH_FORMS[@]}"; do
		cat "$scratch/pushes-$form"
	done
	return $failed
}

# The commands of the README, as they stand there.
step_readme() { scripts/readme_test.sh; }

# Inputs that fail are written to testdata/fuzz of the package, to be committed with the fix; inputs that only reach new
# code stay in Go's build cache, so that the next run begins where this one ended. Inputs are made smaller in a few tries:
# where goroutines take part, what an input covers differs from run to run, and the search would take its whole minute.
# Targets go side by side, as many as there are processors, each with one worker.
# A target that went well has its last count and its verdict in the log, one that failed all that it said.
step_fuzz() {
	local dir target listed lane lanes pids=() failed=0 targets=()
	while IFS= read -r dir; do
		listed=$($GO test -list '^Fuzz' "./$dir") || { printf '%s\n' "$listed"; failed=1; continue; }
		for target in $(grep '^Fuzz' <<<"$listed"); do
			targets+=("$dir $target")
		done
	done < <(grep -rlE '^func Fuzz' --include='*_test.go' server | xargs -r -n1 dirname | sort -u)
	lanes=$(getconf _NPROCESSORS_ONLN) || lanes=2
	for ((lane = 0; lane < lanes; lane++)); do
		fuzz_lane "$lane" "$lanes" "${targets[@]}" &
		pids+=($!)
	done
	for lane in "${pids[@]}"; do
		wait "$lane" || failed=1
	done
	echo "fuzz targets: ${#targets[@]}, $FUZZTIME each"
	((${#targets[@]} > 0 && failed == 0))
}

# Fuzzes every n-th of the targets: from which one on, n, and all of them, each "directory name".
fuzz_lane() {
	local lane=$1 from=$1 lanes=$2 failed=0
	shift 2
	while ((from < $#)); do
		fuzz_target ${@:from+1:1} "$scratch/fuzz-$lane.log" >"$scratch/fuzz-$lane.said" || failed=1
		cat "$scratch/fuzz-$lane.said"
		from=$((from + lanes))
	done
	return $failed
}

# Fuzzes one target: package directory, name, where its output goes. Go before 1.27 now and then fails a target for the end of its time alone, in a race
# of its own (go.dev/issue/75804). Such a failure says nothing but that, and names no input; the target is then fuzzed once more.
fuzz_target() {
	local out=$3 attempt
	echo "$1 $2"
	for attempt in 1 2; do
		if $GO test -run '^$' -fuzz "^$2\$" -fuzztime "$FUZZTIME" -parallel 1 -fuzzminimizetime 10x "./$1" >"$out" 2>&1; then
			grep '^fuzz: elapsed' "$out" | tail -n 1
			tail -n 1 "$out"
			return 0
		fi
		((attempt == 1)) && only_out_of_time "$out" || break
		echo "out of time in the middle of an input (go.dev/issue/75804); once more"
	done
	cat "$out"
	return 1
}

# Whether a failed target's output has the end of its time for its only reason.
only_out_of_time() {
	local reasons
	reasons=$(sed -n '/^--- FAIL: /,/^FAIL$/p' "$1" | sed '1d;$d')
	[[ $reasons == '    context deadline exceeded' ]] && ! grep -q 'Failing input written' "$1"
}

# ---- what the steps need ---------------------------------------------------------------------------------------------

# Whether packages can be installed.
may_install() { ((EUID == 0)) && command -v apt-get >/dev/null; }

# Installs Debian's packages. What there is, is looked up anew only where that fails.
install_packages() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }
}

# Tests start Redis themselves, from Debian's package, and fail without one. Whoever may install it has it installed.
need_redis() {
	command -v redis-server >/dev/null && return 0
	if ! may_install; then
		echo "the tests need redis-server; it comes with Debian's package redis-server (as root: apt-get install redis-server)"
		return 1
	fi
	install_redis && command -v redis-server >/dev/null && return 0
	echo "the tests need redis-server, and Debian's package redis-server could not be installed"
	return 1
}

# Installs the program without the service that comes with it, which is neither started now nor at the next boot. Runs in a
# subshell, so that the policy goes with it, also when it is interrupted.
install_redis() (
	policy=/usr/sbin/policy-rc.d
	if [[ ! -e $policy ]]; then
		trap 'rm -f "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" || exit 1
	fi
	install_packages redis-server || exit 1
	# A policy that was there may let services start.
	if [[ -d /run/systemd/system ]]; then
		systemctl disable --now redis-server.service
	else
		service redis-server stop
		update-rc.d redis-server disable
	fi
	true
)

# Node and what npm has for it, in the versions that the lock file names. npm writes .package-lock.json when all the rest is in its place: where that file is
# newer than what it was made from, everything is there. It is removed beforehand, as npm clears the folder in no order and may be killed at that.
need_js() {
	if ! command -v npm >/dev/null; then
		echo "the tests of clients/js need Node 20 or later, with npm"
		return 1
	fi
	(
		cd clients/js || exit 1
		installed=node_modules/.package-lock.json
		[[ $installed -nt package-lock.json && $installed -nt package.json ]] && exit 0
		rm -f "$installed" && npm ci --no-audit --no-fund
	)
}

# A browser, from Debian's package, or another one that CHROMIUM names.
need_chromium() {
	[[ -x ${CHROMIUM:-/usr/bin/chromium} ]] && return 0
	if ! may_install; then
		echo "the tests need Chromium; it comes with Debian's package chromium (as root: apt-get install chromium), or set CHROMIUM to its program"
		return 1
	fi
	install_packages chromium
}

# Firefox, WebKit and a display for it, from Debian's packages.
need_engines() {
	local packages=(firefox-esr webkit2gtk-driver xvfb)
	[[ -x /usr/bin/firefox-esr && -x /usr/bin/WebKitWebDriver && -x /usr/bin/Xvfb ]] && return 0
	if ! may_install; then
		echo "step engines needs Debian's packages ${packages[*]} (as root: apt-get install ${packages[*]})"
		return 1
	fi
	install_packages "${packages[@]}"
}

# Installs the programs of NEEDED that are missing, which takes root. Without root, tests that cannot run without them say which
# package is missing, and those that take root themselves are skipped.
provide_needed() {
	local need missing=()
	[[ $($GO env GOOS) == linux ]] || return 0
	for need in "${NEEDED[@]}"; do
		PATH=$PATH:/usr/sbin:/sbin command -v "${need%%:*}" >/dev/null || missing+=("${need#*:}")
	done
	((${#missing[@]})) || return 0
	if ! may_install; then
		echo "missing: ${missing[*]} (as root: apt-get install ${missing[*]})"
		return 0
	fi
	install_packages "${missing[@]}"
}

# ---- running them ----------------------------------------------------------------------------------------------------

child=
logs=$PWD/bin/test-logs
scratch=$(mktemp -d "${TMPDIR:-/tmp}/carillon-test.XXXXXX") || exit 1

# Ends the running step and everything it started: each step is a process group of its own.
stop() {
	trap '' INT TERM
	if [[ -n $child ]]; then
		kill -TERM -- "-$child" 2>/dev/null
		wait "$child" 2>/dev/null
	fi
	printf '\ninterrupted\n'
	exit 130
}
trap 'rm -rf "$scratch"' EXIT
trap stop INT TERM

# Prints the lines of a step's log that matter when it went well: one for each package, or for each fuzz target, or what was broken.
brief() {
	grep -E '^(ok[[:space:]]|---? FAIL|FAIL[[:space:]]|fuzz targets:|missing:|(standalone|sentinel|cluster), |faults:|messages:|lost:)' "$1" | sed 's/^/    /'
}

# Prints a failed step's log. Of verbose test output, only packages that failed, without their tests that passed.
show_failure() {
	if ! grep -q '^=== RUN' "$1"; then
		sed 's/^/    /' "$1"
		return
	fi
	awk '
		/^=== (RUN|PAUSE|CONT|NAME)/ || /^ *--- (PASS|SKIP)/ || /^PASS$/ { next }
		/^ok[ \t]/ || /^\?[ \t]/ { held = ""; next }
		{ held = held "    " $0 "\n" }
		/^FAIL[ \t]/ { printf "%s", held; held = "" }
		END { printf "%s", held }
	' "$1"
}

count() { grep -cE "^ *--- $2: " "$1"; }

run_step() {
	local name=$1 log=$logs/$1.log began=$SECONDS status
	printf '%s ...\n' "$name"
	set -m
	"step_$name" >"$log" 2>&1 </dev/null &
	child=$!
	set +m
	wait "$child"
	status=$?
	child=
	tests_passed=$((tests_passed + $(count "$log" PASS)))
	tests_failed=$((tests_failed + $(count "$log" FAIL)))
	tests_skipped=$((tests_skipped + $(count "$log" SKIP)))
	if ((status == 0)); then
		brief "$log"
		steps_passed=$((steps_passed + 1))
		summary+=$(printf '  %-12s ok      %4ds' "$name" $((SECONDS - began)))$'\n'
	else
		show_failure "$log"
		steps_failed=$((steps_failed + 1))
		summary+=$(printf '  %-12s FAILED  %4ds  %s' "$name" $((SECONDS - began)) "${log#"$PWD/"}")$'\n'
	fi
}

steps=("$@")
((${#steps[@]})) || steps=("${ALL_STEPS[@]}")
for name in "${steps[@]}"; do
	if [[ " ${ALL_STEPS[*]} ${OTHER_STEPS[*]} " != *" $name "* ]]; then
		echo "no step '$name'; there are: ${ALL_STEPS[*]}, and, when named, ${OTHER_STEPS[*]}" >&2
		exit 2
	fi
done

mkdir -p "$logs" || exit 1
summary='' steps_passed=0 steps_failed=0 tests_passed=0 tests_failed=0 tests_skipped=0
for name in "${steps[@]}"; do
	run_step "$name"
done

printf '\n%s\n' "$summary"
printf 'tests: %d passed, %d failed, %d skipped\n' "$tests_passed" "$tests_failed" "$tests_skipped"
printf 'steps: %d passed, %d failed\n' "$steps_passed" "$steps_failed"
((steps_failed == 0))
