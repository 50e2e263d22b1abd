//go:build race

package center

// momentsApart is how many moments lie between two at which a center is killed: the race detector makes all of it ten times as slow.
const momentsApart = 11
