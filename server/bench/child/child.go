// Package child runs the processes that a benchmark is made of: the server, and the processes that hold clients.
//
// # Place in the flow
//
// Package bench starts a server with it, package swarm its client processes.
//
// # Invariants
//
//   - A child does not outlive us, however we end: on Linux the kernel kills it then. Stop ends it in peace.
//   - A child is not in the terminal's group: a Ctrl-C is for us, and we end our children in order.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopPatience is how long a child may take to end by itself. A server says goodbye to its clients meanwhile.
const stopPatience = 40 * time.Second

// Process is a child. Its methods are safe for concurrent use.
type Process struct {
	// Stdin and Stdout are ours to write and to read if the process was started with Talk, else nil. Stop closes Stdin;
	// whoever reads Stdout to its end closes that.
	Stdin, Stdout *os.File

	// Static after construction.
	cmd    *exec.Cmd
	said   *tail
	exited chan struct{} // closed when the process is gone
	err    error         // why it ended; set before that
	failed bool          // it did not end well, nor by our signal; set before that
}

// Start starts a process that is left alone.
func Start(command, env []string) (*Process, error) { return start(command, env, false) }

// Talk starts a process that we write to and read from. It ends when its standard input does.
func Talk(command, env []string) (*Process, error) { return start(command, env, true) }

func start(command, env []string, talk bool) (*Process, error) {
	p := &Process{cmd: exec.Command(command[0], command[1:]...), said: &tail{}, exited: make(chan struct{})}
	p.cmd.Env, p.cmd.Stderr, p.cmd.SysProcAttr = env, p.said, attributes()
	var theirs []*os.File
	if talk {
		in, stdin, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("child: %w", err)
		}
		stdout, out, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("child: %w", errors.Join(err, in.Close(), stdin.Close()))
		}
		p.Stdin, p.Stdout, p.cmd.Stdin, p.cmd.Stdout = stdin, stdout, in, out
		theirs = []*os.File{in, out}
	}
	started := make(chan error)
	go p.run(started)
	err := <-started
	for _, f := range theirs {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		if talk {
			err = errors.Join(err, p.Stdin.Close(), p.Stdout.Close())
		}
		return nil, fmt.Errorf("child: %w", err)
	}
	return p, nil
}

// run starts the process and waits for its end. The kernel ends a child together with the thread that started it, not only with
// our process, so the thread is kept for as long.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.exited)
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	if p.err = p.cmd.Wait(); p.err == nil {
		p.err = errors.New("it ended by itself")
	} else {
		status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		p.failed = !ok || status.Signal() != syscall.SIGTERM
	}
	if s := p.said.String(); s != "" {
		p.err = fmt.Errorf("%w: %s", p.err, s)
	}
}

// PID returns the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process is gone.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err returns why the process ended, with the last of what it wrote to standard error; nil while it runs.
func (p *Process) Err() error {
	select {
	case <-p.exited:
		return p.err
	default:
		return nil
	}
}

// Said returns the last of what the process wrote to standard error so far.
func (p *Process) Said() string { return p.said.String() }

// Stop ends the process, first in peace and then by force, and waits until it is gone. A process that was gone before, had to be
// forced, or ended with a failure, is an error.
func (p *Process) Stop() error {
	if err := p.Err(); err != nil {
		if p.Stdin != nil {
			_ = p.Stdin.Close()
		}
		return fmt.Errorf("the process was gone before its time: %w", err)
	}
	if p.Stdin != nil {
		_ = p.Stdin.Close() // if it fails, the process is gone
	} else if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		_ = p.cmd.Process.Kill() // a system without that signal
	}
	patience := time.NewTimer(stopPatience)
	defer patience.Stop()
	select {
	case <-p.exited:
		if p.failed { // it may have been about to go before we asked
			return fmt.Errorf("the process did not end well: %w", p.err)
		}
		return nil
	case <-patience.C:
		_ = p.cmd.Process.Kill()
		<-p.exited
		return fmt.Errorf("the process did not end within %v and was killed", stopPatience)
	}
}

// Signal sends the process a signal; one that is gone is an error.
func (p *Process) Signal(s os.Signal) error {
	if err := p.Err(); err != nil {
		return fmt.Errorf("child: the process was gone before its time: %w", err)
	}
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("child: %w", err)
	}
	return nil
}

// Kill ends the process by force and waits until it is gone, which it may have been before.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it fails if the process is gone
	<-p.exited
	if p.Stdin != nil {
		_ = p.Stdin.Close()
	}
}

// tail keeps the last of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// tailBytes is how much a tail keeps.
const tailBytes = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - tailBytes; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
