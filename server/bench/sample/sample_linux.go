package sample

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Go's own monotonic clock is CLOCK_MONOTONIC behind an unknown beginning. The beginning is found once; after that, reading the
// clock costs no system call, as one for each message would.
var (
	began      = time.Now()
	monoBefore = monotonicSlow()
)

// Monotonic returns CLOCK_MONOTONIC, which is one clock for all processes of the machine, in nanoseconds.
func Monotonic() int64 { return monoBefore + int64(time.Since(began)) }

func monotonicSlow() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(fmt.Sprintf("sample: the monotonic clock: %v", err)) // every Linux has it
	}
	return ts.Nano()
}

// CPU returns the time that a process has spent on processors, in user space and in the kernel, with all of its threads. It is
// the sum of utime and stime of /proc/PID/stat, from the process's clock: the file counts in hundredths of a second.
func CPU(pid int) (time.Duration, error) {
	var ts unix.Timespec
	const sched = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3) for the form of the number
	if err := unix.ClockGettime(int32(^pid)<<3|sched, &ts); err != nil {
		return 0, fmt.Errorf("sample: processor clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Resident returns a process's resident memory. smaps_rollup counts pages; the counters of status lag by some pages for each
// processor, and stand in where the former may not be read.
func Resident(pid int) (Memory, error) {
	b, err := readProc(pid, "smaps_rollup")
	if err == nil {
		f := fields(string(b))
		return Memory{RSS: f["Rss"], Anonymous: f["Anonymous"], Source: "smaps_rollup"}, nil
	}
	if b, err = readProc(pid, "status"); err != nil {
		return Memory{}, fmt.Errorf("sample: resident memory: %w", err)
	}
	f := fields(string(b))
	return Memory{RSS: f["VmRSS"], Anonymous: f["RssAnon"], Source: "status"}, nil
}

func readProc(pid int, name string) ([]byte, error) {
	return os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
}

// KernelMemory returns the kernel's memory.
func KernelMemory() (Kernel, error) {
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return Kernel{}, fmt.Errorf("sample: kernel memory: %w", err)
	}
	sockstat, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return Kernel{}, fmt.Errorf("sample: kernel memory: %w", err)
	}
	pages, err := tcpPages(string(sockstat))
	if err != nil {
		return Kernel{}, err
	}
	return Kernel{Slab: fields(string(meminfo))["Slab"], TCP: pages * int64(os.Getpagesize())}, nil
}

// CommandLine returns the words with which a process was started.
func CommandLine(pid int) ([]string, error) { return words(pid, "cmdline") }

// Environ returns the environment with which a process was started.
func Environ(pid int) ([]string, error) { return words(pid, "environ") }

func words(pid int, name string) ([]string, error) {
	b, err := readProc(pid, name)
	if err != nil {
		return nil, fmt.Errorf("sample: %w", err)
	}
	var out []string
	for _, w := range bytes.Split(bytes.TrimSuffix(b, []byte{0}), []byte{0}) {
		out = append(out, string(w))
	}
	return out, nil
}

// OpenFiles returns how many files a process may open, as it stands and at most.
func OpenFiles(pid int) (soft, hard uint64, err error) {
	var l unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &l); err != nil {
		return 0, 0, fmt.Errorf("sample: limit of open files: %w", err)
	}
	return l.Cur, l.Max, nil
}

// RaiseOpenFiles lets this process, and those it starts, open as many files as it ever may. It returns how many.
func RaiseOpenFiles() (uint64, error) {
	_, hard, err := OpenFiles(0)
	if err != nil {
		return 0, err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: hard, Max: hard}); err != nil {
		return 0, fmt.Errorf("sample: limit of open files: %w", err)
	}
	return hard, nil
}

// filesystems names the kinds that say something about what a flush is worth.
var filesystems = map[int64]string{
	unix.TMPFS_MAGIC: "tmpfs", unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
}

// Filesystem returns the kind of file system that a directory lies on.
func Filesystem(dir string) (string, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "", fmt.Errorf("sample: file system of %s: %w", dir, err)
	}
	if name, ok := filesystems[int64(s.Type)]; ok {
		return name, nil
	}
	return fmt.Sprintf("%#x", s.Type), nil
}

// This returns the machine that this process runs on.
func This() (Machine, error) {
	m := Machine{Cores: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH, CPU: "unknown"}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, fmt.Errorf("sample: %w", err)
	}
	for line := range strings.Lines(string(cpuinfo)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return m, fmt.Errorf("sample: %w", err)
	}
	m.MemoryBytes = fields(string(meminfo))["MemTotal"]
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("sample: uname: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	return m, nil
}
