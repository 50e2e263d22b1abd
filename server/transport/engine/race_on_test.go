//go:build race && linux

package engine

const raceEnabled = true
