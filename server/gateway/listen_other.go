//go:build !linux

package gateway

import "net"

// listen is net.Listen: only of Linux is it known that connections have their listener's keep-alive.
func listen(network, address string) (net.Listener, error) { return net.Listen(network, address) }
