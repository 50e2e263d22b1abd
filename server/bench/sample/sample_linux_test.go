package sample

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMonotonic_IsTheMachinesClock(t *testing.T) {
	var ts unix.Timespec
	before := Monotonic()
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	after := Monotonic()
	slack := int64(100 * time.Microsecond) // of finding the beginning
	if ts.Nano() < before-slack || ts.Nano() > after+slack {
		t.Errorf("the clock says %d, between %d and %d", ts.Nano(), before, after)
	}
}

func TestOwnProcess_CanBeSampled(t *testing.T) {
	pid := os.Getpid()
	cpu, err := CPU(pid)
	if err != nil || cpu <= 0 {
		t.Errorf("processor time %v, %v", cpu, err)
	}
	for again, err := CPU(pid); again == cpu; again, err = CPU(pid) { // asking takes some
		if err != nil {
			t.Fatal(err)
		}
	}
	m, err := Resident(pid)
	if err != nil || m.RSS < 1<<20 || m.Anonymous <= 0 || m.Anonymous > m.RSS {
		t.Errorf("memory %+v, %v", m, err)
	}
	k, err := KernelMemory()
	if err != nil || k.Slab <= 0 {
		t.Errorf("kernel memory %+v, %v", k, err)
	}
	words, err := CommandLine(pid)
	if err != nil || words[0] != os.Args[0] {
		t.Errorf("command line %q, %v", words, err)
	}
	if _, err := Environ(pid); err != nil {
		t.Error(err)
	}
	soft, hard, err := OpenFiles(pid)
	if err != nil || soft == 0 || soft > hard {
		t.Errorf("open files %d of %d, %v", soft, hard, err)
	}
	if fs, err := Filesystem(t.TempDir()); err != nil || fs == "" {
		t.Errorf("file system %q, %v", fs, err)
	}
	if this, err := This(); err != nil || this.Cores < 1 || this.MemoryBytes < 1<<20 || this.Kernel == "" {
		t.Errorf("machine %+v, %v", this, err)
	}
}

func TestCPU_OfAProcessThatIsGoneIsAnError(t *testing.T) {
	if _, err := CPU(1 << 22); err == nil {
		t.Error("there is no such process, and it has a clock")
	}
}
