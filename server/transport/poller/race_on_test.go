//go:build race && linux

package poller

const raceEnabled = true
