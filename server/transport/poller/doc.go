// Package poller parks sockets outside Go's scheduler: a connection that waits costs a descriptor, a few words and nothing
// else, neither a goroutine nor a buffer. Transports use it for connections that idle for hours.
//
// # Place in the flow
//
// A transport takes a connection out of net/http, hands its descriptor over with [Socket.Adopt] into a place that it has
// reserved before it promised the client anything ([Lazy.Reserve]), and arms it with a [Handler]. A few loops, one for each
// processor, wait on an epoll each and call the handler of whatever became readable or writable. Reading, writing and closing
// go through the [Socket], never wait, and are the handler's and the transport's to do.
//
// The loops themselves wait in Go's own poller, in which an epoll is a descriptor like any other: no thread sits in a system
// call, and a loop that is woken runs as soon as a goroutine would.
//
// # Descriptors
//
// Go protects a descriptor from being used after it was closed and given to somebody else. Out here that is ours to do:
//
//   - A Socket reads, writes and closes under one lock, so no system call meets a descriptor that another goroutine has closed.
//   - What epoll remembers of a descriptor is not its number but a place in the loop's table and that place's generation.
//     An event that was on its way when the socket closed finds another generation and is dropped, even if both the number
//     and the place belong to a new connection by then.
//   - Close is idempotent.
//
// Where the system has no epoll, [New] says so with errors.ErrUnsupported.
package poller

import "errors"

// ErrWouldBlock says that a socket has nothing to read, or takes nothing more, for now.
var ErrWouldBlock = errors.New("poller: would block")

// Handler is told about its socket. Calls for one socket come one after the other, from the goroutine of its loop, which
// serves many others: they may not block. A call may still be under way when Close of the socket returns, and one may begin
// just after; reads and writes of a closed socket fail with net.ErrClosed.
type Handler interface {
	// Ready says that the socket can be read without waiting, or that the peer or the connection has ended, which a read
	// tells; and whether it can be written, which is said after [Socket.AwaitWrite], and when the connection broke, which a
	// write tells. scratch is the loop's, for the time of the call. What is left unread is announced again.
	Ready(readable, writable bool, scratch []byte)
}

// ScratchSize is the size of a loop's scratch buffer in bytes, so of the largest read: a whole frame of a client with room
// to spare.
const ScratchSize = 32 << 10
