//go:build !race && linux

package ws

const raceEnabled = false
