package torture

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// mayCut says that this system tells whose a connection is.
const mayCut = true

// holds reports whether a process holds the connection that comes from one address and goes to another.
func holds(pid int, from, to net.Addr) bool {
	inode, err := inodeOf(from, to)
	if err != nil || inode == 0 || pid == 0 {
		return false
	}
	want := fmt.Sprintf("socket:[%d]", inode)
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, f := range files {
		if to, err := os.Readlink(dir + "/" + f.Name()); err == nil && to == want {
			return true
		}
	}
	return false
}

// What the kernel is asked for one socket is a netlink header (16 bytes) and an inet_diag_req_v2: family, protocol, two of no use here,
// states (4), and the socket: its port and the other's (2 each, big endian), its address and the other's (16 each), the interface (4)
// and a cookie (8). It answers with a header and an inet_diag_msg: four bytes, the socket, and five numbers of 4 bytes, of which the last is
// the inode.
const (
	diagByFamily = 20
	diagHeader   = 16
	diagSocket   = 48
	diagRequest  = diagHeader + 8 + diagSocket
	diagInode    = diagHeader + 4 + diagSocket + 16
)

// inodeOf returns the number of the socket at the near end of a connection over IPv4. To look for it in /proc/net/tcp takes as long as there are
// sockets on the machine.
func inodeOf(from, to net.Addr) (uint32, error) {
	near, ok := from.(*net.TCPAddr)
	far, ok2 := to.(*net.TCPAddr)
	if !ok || !ok2 || near.IP.To4() == nil || far.IP.To4() == nil {
		return 0, fmt.Errorf("torture: %v and %v are no ends of a connection over IPv4", from, to)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, fmt.Errorf("torture: ask for a socket: %w", err)
	}
	defer unix.Close(fd)
	b := make([]byte, diagRequest)
	binary.NativeEndian.PutUint32(b, diagRequest)
	binary.NativeEndian.PutUint16(b[4:], diagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	b[diagHeader], b[diagHeader+1] = unix.AF_INET, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[diagHeader+4:], ^uint32(0)) // in whatever state
	socket := b[diagHeader+8:]
	binary.BigEndian.PutUint16(socket, uint16(near.Port))
	binary.BigEndian.PutUint16(socket[2:], uint16(far.Port))
	copy(socket[4:], near.IP.To4())
	copy(socket[20:], far.IP.To4())
	binary.NativeEndian.PutUint64(socket[40:], ^uint64(0)) // no cookie
	patience := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return 0, fmt.Errorf("torture: ask for a socket: %w", err)
	}
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("torture: ask for a socket: %w", err)
	}
	reply := make([]byte, 1024)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	switch {
	case err != nil:
		return 0, fmt.Errorf("torture: ask for a socket: %w", err)
	case n < diagInode+4 || binary.NativeEndian.Uint16(reply[4:]) != diagByFamily:
		return 0, nil // there is none
	}
	return binary.NativeEndian.Uint32(reply[diagInode:]), nil
}
