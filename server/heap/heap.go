// Package heap tells the garbage collector how much memory the process may take.
//
// Go's collector needs, on top of what is reachable, as much again as GOGC says before it runs. Without a limit a node near
// the end of its memory is killed although most of it is garbage; with one the collector runs more often instead. The
// limit follows from what the process was given: its control group's, or the machine's. docs/operations/memory.md has the
// figures behind the defaults.
//
// The settings are the process's, so only the command line applies them, and what an operator set in GOGC or GOMEMLIMIT
// stays.
package heap

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// Auto as a limit is AutoPercent of what the process was given, or none where that cannot be found out.
const Auto = -1

// AutoPercent leaves room for what Go's limit does not count: the block cache and the tables of the store, and, where it
// is charged to the process, the kernel's memory for sockets.
const AutoPercent = 70

// Config says what is to be set. Only the two numbers have to be given.
type Config struct {
	LimitBytes int64 // Auto; 0: none
	GCPercent  int

	Env  func(name string) (string, bool) // os.LookupEnv
	Root fs.FS                            // os.DirFS("/"): where the machine says what it has
}

// Applied is what holds now, and why.
type Applied struct {
	LimitBytes  int64  // 0: none
	LimitFrom   string // "GOMEMLIMIT", "configuration", "control group", "machine", "unknown"
	GCPercent   string // as GOGC has it, or a number
	PercentFrom string // "GOGC", "configuration"
}

// Apply sets the collector's limit and pace.
func Apply(c Config) Applied {
	if c.Env == nil {
		c.Env = os.LookupEnv
	}
	if c.Root == nil {
		c.Root = os.DirFS("/")
	}
	var a Applied
	if v, set := c.Env("GOGC"); set && v != "" {
		a.GCPercent, a.PercentFrom = v, "GOGC"
	} else {
		debug.SetGCPercent(c.GCPercent)
		a.GCPercent, a.PercentFrom = strconv.Itoa(c.GCPercent), "configuration"
	}
	if v, set := c.Env("GOMEMLIMIT"); set && v != "" {
		a.LimitBytes, a.LimitFrom = debug.SetMemoryLimit(-1), "GOMEMLIMIT"
		return a
	}
	a.LimitBytes, a.LimitFrom = c.LimitBytes, "configuration"
	if c.LimitBytes == Auto {
		given, from := Given(c.Root)
		a.LimitBytes, a.LimitFrom = given/100*AutoPercent, from
	}
	if a.LimitBytes > 0 {
		debug.SetMemoryLimit(a.LimitBytes)
	} else {
		debug.SetMemoryLimit(math.MaxInt64)
	}
	return a
}

// Given returns how much memory the process may take, by its control groups (Linux, versions 1 and 2) and by what the machine
// has, whichever is less; 0 if neither can be found out.
func Given(root fs.FS) (bytes int64, from string) {
	bytes, from = machine(root), "machine"
	for _, limit := range groupLimits(root) {
		if limit > 0 && (bytes == 0 || limit < bytes) {
			bytes, from = limit, "control group"
		}
	}
	if bytes == 0 {
		from = "unknown"
	}
	return bytes, from
}

// machine returns the memory of the machine, 0 if it cannot be found out.
func machine(root fs.FS) int64 {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err == nil && n > 0 && n < math.MaxInt64>>10 {
				return n << 10
			}
		}
	}
	return 0
}

// groupLimits returns the limits of the process's control group and of those above it.
func groupLimits(root fs.FS) []int64 {
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	var limits []int64
	for line := range strings.Lines(string(b)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		switch {
		case len(part) != 3:
		case part[0] == "0" && part[1] == "":
			limits = append(limits, upwards(root, "sys/fs/cgroup", part[2], "memory.max")...)
		case strings.Contains(","+part[1]+",", ",memory,"):
			limits = append(limits, upwards(root, "sys/fs/cgroup/memory", part[2], "memory.limit_in_bytes")...)
		}
	}
	return limits
}

// upwards reads a file of a group and of every one above it. Inside a container the path may be one of the host's, of
// which only the top is to be seen.
func upwards(root fs.FS, mount, group, name string) []int64 {
	var limits []int64
	for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
		if b, err := fs.ReadFile(root, path.Join(mount, dir, name)); err == nil {
			// "max" in version 2 and a number near 2^63 in version 1 stand for none.
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 && n < 1<<60 {
				limits = append(limits, n)
			}
		}
		if dir == "/" {
			return limits
		}
	}
}
