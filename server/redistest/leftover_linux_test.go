package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// endsBadly is set for a test binary that this one starts, and says how its test has to end.
const endsBadly = "REDISTEST_ENDS_BADLY"

// TestProcesses_DoNotOutliveATestHoweverItEnds starts itself.
func TestProcesses_DoNotOutliveATestHoweverItEnds(t *testing.T) {
	if how := os.Getenv(endsBadly); how != "" {
		endBadly(t, how)
		return
	}
	for _, how := range []string{"panic", "panic elsewhere", "exit", "killed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run", "^TestProcesses_DoNotOutliveATestHoweverItEnds$")
			cmd.Env = append(os.Environ(), endsBadly+"="+how, "TMPDIR="+t.TempDir())
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pids := 0
			var running []string
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				pid, ok := strings.CutPrefix(lines.Text(), "pid ")
				if !ok {
					continue
				}
				pids++
				running = append(running, "/proc/"+pid)
				if how == "killed" && pids == 6 {
					if err := cmd.Process.Kill(); err != nil {
						t.Error(err)
					}
				}
			}
			if err := cmd.Wait(); err == nil {
				t.Error("it ended well")
			}
			if pids != 6 {
				t.Fatalf("it told of %d processes, want 6", pids)
			}
			soon(t, "all are gone", func(context.Context) error {
				for _, p := range running {
					if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
						return fmt.Errorf("%s is there (%v)", p, err)
					}
				}
				return nil
			})
		})
	}
}

func endBadly(t *testing.T, how string) {
	r := Sentinel(t)
	if err := r.Servers()[1].Freeze(t.Context()); err != nil { // one that takes no notice of a polite signal
		t.Fatal(err)
	}
	for _, n := range r.Nodes() {
		fmt.Println("pid", n.PID())
	}
	switch how {
	case "panic":
		panic("on purpose")
	case "panic elsewhere":
		done := make(chan struct{})
		go func() { panic("on purpose") }()
		<-done
	case "exit":
		os.Exit(3)
	case "killed":
		select {} // whoever started us does it
	}
}
