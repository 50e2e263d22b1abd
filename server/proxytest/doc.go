// Package proxytest is a bad network for tests: a TCP proxy on loopback that delays, cuts, stalls, loses and reorders what
// flows through it, exactly when a test says so. The kernel's own means (tc netem) are not there on every machine, and are
// nothing that a test could hold in its hand.
//
// A [Proxy] forwards each connection that it accepts to its target; a [Link] is one such connection, with a direction
// [Up] to the target and a direction [Down] to who dialed. What a test asks of a link is in effect when the method
// returns: after Stall no further byte is read, after Hold none is written, after Drop none that was not written arrives.
// A test learns what happened by waiting for counts, with [Link.Await], never by letting time pass.
//
// Between reading and writing, a direction keeps what is in flight. As long as nothing holds it up that is at most 64 KiB,
// beyond which the proxy does not read, so a receiver that does not read is felt by the sender as on a network of its
// own. What is delayed or held counts towards 16 MiB.
//
// Invariants:
//
//   - Bytes of one direction of one link are never reordered, repeated or changed; those that arrive are a prefix of those
//     that were sent. Only links change places among each other.
//   - The end of a stream follows its last byte, a reset likewise, unless the direction drops: a dead network tells nobody.
//   - Time is used for delays alone, and comes from a clock that the test may bring. Random delays come from a seed.
//   - Close waits for every goroutine of the proxy.
//
// Lock order: Proxy.mu, then Link.mu. No lock is held while a socket is read, written or dialed.
package proxytest
