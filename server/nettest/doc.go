// Package nettest is a real network for tests: hosts that are network namespaces of this machine's kernel, wired to one switch,
// between which packets vanish, or are refused, when a test says so. What package proxytest does to bytes, this does to
// packets: only here does a kernel meet a peer that is not there any more, and only here does a host change its address.
//
// A [Network] has no way out: its hosts reach each other and nobody else, and two networks never meet, so their addresses may be
// the same. Sockets that [Host.Listen] and [Host.DialContext] make stay in their host whoever uses them, so a node and its
// clients run in the process of the test; [Host.Start] starts another process on a host, such as a server that is to be killed.
//
//	        Network (a bridge)
//	      /         |         \
//	"gateway"    "phone"    "backend"      network.Cut(gateway, phone)
//	10.77.0.1   10.77.0.2   10.77.0.3      network.CutOneWay(phone, gateway)
//	                                       network.Partition([]*Host{gateway}, []*Host{phone, backend})
//	                                       network.Reject(phone, gateway), network.Heal(gateway, phone)
//	                                       phone.Readdress()
//
// Faults go by interface, not by address: they hold for a host whatever its address is.
//
// It needs Linux, root, and ip, ss and iptables (Debian: iproute2, iptables). Without root, tests that ask for a network are
// skipped and say so; as root, a missing program fails them.
//
// # Invariants
//
//   - Namespaces have no name and no process of their own: they are held by descriptors of the test's process alone, so they and
//     all that is in them are gone when it ends, however it ends.
//   - What a fault is asked to do is in effect when the method returns. That it met packets is shown by [Network.Vanished].
//   - A thread is in another namespace only while one of our methods runs on it, and every thread that goes back to the runtime is
//     where the process began.
package nettest
