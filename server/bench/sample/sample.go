// Package sample reads what a process and its machine say of themselves: time on the processor, resident memory, memory of
// the kernel, and what the machine is.
//
// # Place in the flow
//
// Package bench samples the server before and after what it makes the server do; its client processes sample themselves.
//
// # Invariants
//
// Nothing here touches the process that is looked at: it is read through /proc and its processor clock, by anybody who runs as
// the same user. It works on Linux; elsewhere every function fails with [ErrLinux].
package sample

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrLinux is the error on every other system.
var ErrLinux = errors.New("this needs Linux: it reads /proc and waits with epoll")

// Memory is the resident memory of a process, in bytes.
type Memory struct {
	RSS       int64
	Anonymous int64  // without pages of files, such as the binary
	Source    string // the file under /proc/PID that said so
}

// Kernel is memory of the kernel in all, in bytes. It belongs to no process: sockets of both ends on one machine are in it.
type Kernel struct {
	Slab int64 // objects: sockets, files, directory entries, epoll items
	TCP  int64 // pages of TCP's buffers
}

// Machine is where a figure was taken.
type Machine struct {
	Cores       int    `json:"cores"`
	CPU         string `json:"cpu"`
	MemoryBytes int64  `json:"memory_bytes"`
	Kernel      string `json:"kernel"`
	OS          string `json:"os"`
	Arch        string `json:"arch"`
}

// fields reads lines of the form "Name: 123 kB" and returns bytes by name; without a unit, the number as it stands.
func fields(text string) map[string]int64 {
	out := make(map[string]int64)
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		name, value, ok := strings.Cut(s.Text(), ":")
		if !ok {
			continue
		}
		value, isKB := strings.CutSuffix(strings.TrimSpace(value), " kB")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			continue
		}
		if isKB {
			n *= 1024
		}
		out[strings.TrimSpace(name)] = n
	}
	return out
}

// tcpPages returns how many pages /proc/net/sockstat counts for TCP, in lines such as
// "TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 11".
func tcpPages(sockstat string) (int64, error) {
	for line := range strings.Lines(sockstat) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(words); i += 2 {
			if words[i] == "mem" {
				return strconv.ParseInt(words[i+1], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("sample: sockstat names no memory of TCP")
}
