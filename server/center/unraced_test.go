//go:build !race

package center

const momentsApart = 1
