package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
)

// progress shows people how far a long command is: on a terminal in one line that changes, and else in a line for each step,
// and now and then one for a step that takes long. It is safe for concurrent use.
type progress struct {
	w        io.Writer
	terminal bool

	// Guarded by mu.
	mu   sync.Mutex
	step string
	last time.Time
}

// How often a line is written while the step is the same.
const (
	progressOnTerminal = 100 * time.Millisecond
	progressElsewhere  = 15 * time.Second
)

func newProgress(w io.Writer) *progress {
	p := &progress{w: w}
	if f, ok := w.(*os.File); ok {
		p.terminal = isTerminal(f)
	}
	return p
}

// isTerminal reports whether somebody may sit at the other end: whether the file is a device of characters.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// say tells what is being done. Texts that differ in their numbers alone are of the same step.
func (p *progress) say(text string) {
	step := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, text)
	every := progressElsewhere
	if p.terminal {
		every = progressOnTerminal
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); step != p.step || now.Sub(p.last) >= every {
		p.step, p.last = step, now
		if p.terminal {
			fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		} else {
			fmt.Fprintln(p.w, text)
		}
	}
}

// end makes room for what follows.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
