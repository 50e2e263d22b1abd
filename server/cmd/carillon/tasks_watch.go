package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	watchQuiet = 45 * time.Second       // a stream that brings nothing for so long, not even a comment, is broken
	watchAgain = 500 * time.Millisecond // before it is taken up again; twice as long each time that fails
	watchMost  = 15 * time.Second       // and at most so long
	watchBytes = 8 << 20                // of one event
)

var (
	errWatchQuiet = fmt.Errorf("nothing came for %v", watchQuiet)
	errWatchOver  = errors.New("the server ended the stream")
)

// watcher shows a task until it ends.
type watcher struct {
	a    *app
	t    target
	id   string
	json bool

	last  *shownTask // as it was shown last; nil: never
	drawn bool       // it was drawn, and is drawn over
}

// run shows the task until it ends, and returns an error unless all was written, or taken back.
func (w *watcher) run(ctx context.Context) error {
	wait := watchAgain
	for {
		came, err := w.stream(ctx)
		switch {
		case w.last != nil && w.last.hasEnded():
			return w.outcome()
		case ctx.Err() != nil:
			return w.left()
		case w.last == nil || !passes(err):
			return err
		case came:
			wait = watchAgain
		}
		pause := wait/2 + rand.N(wait/2)
		var refused *restError
		if errors.As(err, &refused) {
			pause = max(pause, time.Duration(refused.RetryAfter)*time.Second)
		}
		if !errors.Is(err, errWatchOver) {
			w.a.say("%s; watching again in %v", printable(err.Error()), pause.Round(time.Millisecond))
			w.drawn = false
		}
		if w.a.wait(ctx, pause) != nil {
			return w.left()
		}
		wait = min(2*wait, watchMost)
	}
}

// passes reports whether trying again may help.
func passes(err error) bool {
	var e *restError
	if errors.As(err, &e) {
		return e.Status >= 500 || e.Status == http.StatusTooManyRequests
	}
	return true
}

// outcome returns nil if the task ended well.
func (w *watcher) outcome() error {
	t := w.last
	if t.State == "completed" || t.State == "stopped" && t.Progress.Recalled != "" {
		return nil
	}
	return fmt.Errorf("task %s is %s", printable(t.ID), printable(t.stands()))
}

// left says what becomes of a task that somebody stopped watching.
func (w *watcher) left() error {
	stands := "as it was"
	if w.last != nil {
		stands = w.last.State
	}
	return fmt.Errorf("you stopped watching task %s; it is %s, and was left so", printable(w.id), printable(stands))
}

// stream shows what one stream brings until it breaks off, or the task has ended. came reports whether it brought anything.
func (w *watcher) stream(ctx context.Context) (came bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(watchQuiet, func() { cancel(errWatchQuiet) })
	defer quiet.Stop()
	resp, err := w.t.open(ctx, http.MethodGet, "/v1/tasks/"+url.PathEscape(w.id)+"/events", nil, -1, http.Header{"Accept": {"text/event-stream"}})
	if err != nil {
		return false, cause(ctx, err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, watchBytes)
	event, data := "", ""
	for lines.Scan() {
		quiet.Reset(watchQuiet)
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "" && event == "end":
			return came, errWatchOver
		case lines.Text() == "" && event == "task":
			came = true
			if err := w.show([]byte(data)); err != nil || w.last.hasEnded() {
				return came, err
			}
			event, data = "", ""
		case lines.Text() == "":
			event, data = "", ""
		case name == "event":
			event = value
		case name == "data":
			data += value
		}
	}
	err = lines.Err()
	if err == nil {
		err = fmt.Errorf("the stream broke off: %w", io.ErrUnexpectedEOF)
	}
	return came, cause(ctx, err)
}

// cause returns why a stream ended, where that is known better than its error says.
func cause(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errWatchQuiet) {
		return errWatchQuiet
	}
	return err
}

// show shows the task as it is now.
func (w *watcher) show(event []byte) error {
	task, err := readTask(event)
	if err != nil {
		return err
	}
	w.last = task
	switch {
	case w.json:
		w.a.print("%s", event)
	case w.a.draws:
		w.draw(task.view(w.a.width(), movesShown, time.Now()))
	default:
		w.a.print("%s", task.line(time.Now()))
	}
	return nil
}

// draw draws lines at the top of the terminal, over those that were drawn before.
func (w *watcher) draw(lines []string) {
	var b bytes.Buffer
	if !w.drawn {
		b.WriteString("\x1b[2J") // what stands there goes
		w.drawn = true
	}
	b.WriteString("\x1b[H")
	for _, line := range lines {
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	_, _ = w.a.stdout.Write(b.Bytes()) // a terminal that is gone ends the process
}
