package child

import (
	"bufio"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTalk_EndsWithItsInput(t *testing.T) {
	p, err := Talk([]string{"cat"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stdout.Close()
	if _, err := p.Stdin.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(p.Stdout).ReadString('\n'); line != "hello\n" {
		t.Errorf("it said %q (%v)", line, err)
	}
	if group, err := unix.Getpgid(p.PID()); err != nil || group == unix.Getpgrp() {
		t.Errorf("it is in our group %d: a Ctrl-C would reach it (%v)", group, err)
	}
	if err := p.Err(); err != nil {
		t.Errorf("while it runs: %v", err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if unix.Kill(p.PID(), 0) != unix.ESRCH {
		t.Error("it is still there")
	}
}

func TestStart_EndsAtTheSignal(t *testing.T) {
	p, err := Start([]string{"sleep", "1000"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

func TestStop_TellsWhyAProcessWasGoneBefore(t *testing.T) {
	p, err := Start([]string{"sh", "-c", "echo why >&2; exit 3"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	for _, err := range []error{p.Err(), p.Stop()} {
		if err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
			t.Errorf("told as %v", err)
		}
	}
}

func TestKill_TakesAProcessThatListensToNoSignal(t *testing.T) {
	p, err := Start([]string{"sh", "-c", "trap '' TERM; exec sleep 1000"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(unix.SIGSTOP); err != nil {
		t.Error(err)
	}
	p.Kill()
	if unix.Kill(p.PID(), 0) != unix.ESRCH {
		t.Error("it is still there")
	}
	p.Kill() // again, of what is gone
	if err := p.Signal(unix.SIGCONT); err == nil {
		t.Error("what is gone took a signal")
	}
}

func TestStart_OfNothingIsAnError(t *testing.T) {
	if _, err := Start([]string{"/no/such/program"}, nil); err == nil {
		t.Error("it was started")
	}
	if _, err := Talk([]string{"/no/such/program"}, nil); err == nil {
		t.Error("it was started")
	}
}
