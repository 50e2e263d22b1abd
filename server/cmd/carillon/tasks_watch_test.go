package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// event is what a task's stream says of its state.
func event(state string) string {
	return "event: task\ndata: " + `{"id":"7","state":"` + state + `","reason":"why","progress":{"users":2,"exact":true,"written":1,"percent":50}}` + "\n\n"
}

// streams serves each connection the next of these: a status, if it is one, or the text of a stream, which breaks off behind it. A stream that ends in "..."
// stays open.
func streams(t *testing.T, each ...string) (dir string, f *fakeServer) {
	t.Helper()
	f = newFakeServer(t, 0, "")
	n := 0
	f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.got = append(f.got, request{method: r.Method, path: r.URL.RequestURI(), bearer: r.Header.Get("Accept")})
		if n == len(each) {
			t.Errorf("it comes back after %d streams", n)
			w.WriteHeader(http.StatusNotFound)
			return
		}
		text := each[n]
		n++
		var status, after int
		if _, err := fmt.Sscanf(text, "%d %d", &status, &after); err == nil {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"code":"code_of_%d","retry_after":%d}`, status, after)
			return
		}
		text, open := strings.CutSuffix(text, "...")
		_, _ = w.Write([]byte(text))
		w.(http.Flusher).Flush()
		if open {
			<-r.Context().Done()
		}
	})
	return devData(t, f.URL, ""), f
}

func TestTasksWatch_TakesUpAStreamThatBreaksOff(t *testing.T) {
	dir, f := streams(t, ":\n\n"+event("scheduled")+event("running")[:40], "503 7", "429 0", event("running"), "event: end\ndata: {}\n\n",
		event("running"), event("completed")+event("running"))
	var waits []time.Duration
	r := at(t, app{sleep: func(_ context.Context, d time.Duration) error {
		waits = append(waits, d)
		return nil
	}}, "", "tasks", "show", "--data", dir, "--watch", "7")
	var states []string
	for line := range strings.Lines(r.out) {
		states = append(states, strings.Fields(line)[1])
	}
	if got, want := strings.Join(states, " "), "scheduled running running completed"; r.code != exitOK || strings.ReplaceAll(strings.ReplaceAll(got, ":", ""), " (why)", "") != want {
		t.Errorf("code %d: saw %q, want %q (%s)", r.code, got, want, r.errOut)
	}
	// Twice as long each time, half of it left to chance, and begun anew by what a stream brings.
	least := []time.Duration{250, 7000, 1000, 250, 500, 250}
	most := []time.Duration{500, 7000, 2000, 500, 1000, 500}
	if len(waits) != len(least) {
		t.Fatalf("it waited for %v", waits)
	}
	for i, d := range waits {
		if d < least[i]*time.Millisecond || d > most[i]*time.Millisecond {
			t.Errorf("pause %d: %v, want %d to %d ms", i, d, least[i], most[i])
		}
	}
	if said := strings.Count(r.errOut, "watching again in"); said != 5 || !strings.Contains(r.errOut, "code_of_503") {
		t.Errorf("it says so %d times, want 5, not of a stream that the server ended: %s", said, r.errOut)
	}
	if got := f.last(t); got.path != "/v1/tasks/7/events" || got.bearer != "text/event-stream" {
		t.Errorf("asked for %+v", got)
	}
}

func TestTasksWatch_WaitsNoLongerThanItSays(t *testing.T) {
	each := []string{event("running")}
	for range 12 {
		each = append(each, "500 0")
	}
	dir, _ := streams(t, append(each, event("completed"))...)
	var longest time.Duration
	r := at(t, app{sleep: func(_ context.Context, d time.Duration) error {
		longest = max(longest, d)
		return nil
	}}, "", "tasks", "show", "--data", dir, "--watch", "7")
	if r.code != exitOK || longest > watchMost || longest < watchMost/2 {
		t.Errorf("code %d, waited up to %v, want up to %v", r.code, longest, watchMost)
	}
}

func TestTasksWatch_ItsEndIsItsExitCode(t *testing.T) {
	recalled := "event: task\ndata: {\"id\":\"7\",\"state\":\"stopped\",\"progress\":{\"recalled\":\"R\"}}\n\n"
	for _, c := range []struct {
		streams []string
		code    int
		want    string
	}{
		{[]string{event("completed")}, exitOK, ""},
		{[]string{event("recalling") + recalled}, exitOK, ""},
		{[]string{event("stopped")}, exitFailed, "task 7 is stopped (why)"},
		{[]string{event("failed")}, exitFailed, "task 7 is failed (why)"},
		{[]string{"404 0"}, exitFailed, "code_of_404"},
		{[]string{"503 0"}, exitFailed, "code_of_503"}, // nothing was ever seen: nobody waits for a server that is not there
		{[]string{event("running"), "404 0"}, exitFailed, "code_of_404"},
		{[]string{event("running"), "401 0"}, exitFailed, "code_of_401"},
	} {
		dir, _ := streams(t, c.streams...)
		r := at(t, app{sleep: func(context.Context, time.Duration) error { return nil }}, "", "tasks", "show", "--data", dir, "-w", "7")
		if r.code != c.code || !strings.Contains(r.errOut, c.want) {
			t.Errorf("%q: code %d, want %d: %s", c.streams, r.code, c.code, r.errOut)
		}
	}
}

func TestTasksWatch_CtrlCLeavesTheTaskAsItIs(t *testing.T) {
	for _, last := range []string{event("running") + "...", event("running")} { // while a stream is open, and between two
		dir, f := streams(t, last)
		ctx, cancel := context.WithCancel(t.Context())
		lines := make(chan string, 10)
		var said bytes.Buffer
		a := &app{stdout: lineWriter(lines), stderr: &said, sleep: func(ctx context.Context, _ time.Duration) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		done := make(chan int, 1)
		go func() { done <- a.run(ctx, []string{"tasks", "show", "--data", dir, "--watch", "7"}) }()
		<-lines
		cancel()
		if code := <-done; code != exitFailed || !strings.Contains(said.String(), "you stopped watching task 7; it is running, and was left so") {
			t.Errorf("code %d: %s", code, &said)
		}
		if len(f.got) != 1 {
			t.Errorf("asked for %v", f.got)
		}
	}
}

// roundTrips answers requests without a network.
type roundTrips func(*http.Request) (*http.Response, error)

func (f roundTrips) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A comment each quarter of a minute keeps a stream alive; one that brings nothing for three quarters is broken, and taken up again.
func TestTasksWatch_AStreamThatBringsNothingIsBroken(t *testing.T) {
	defer func(was http.RoundTripper) { http.DefaultClient.Transport = was }(http.DefaultClient.Transport)
	synctest.Test(t, func(t *testing.T) {
		var began []time.Duration
		start := time.Now()
		http.DefaultClient.Transport = roundTrips(func(r *http.Request) (*http.Response, error) {
			began = append(began, time.Since(start))
			body, w := io.Pipe()
			go func() { // ends with the request
				<-r.Context().Done()
				w.CloseWithError(r.Context().Err())
			}()
			go func() { // ends with the last line
				if len(began) > 1 {
					_, _ = io.WriteString(w, event("completed"))
					return
				}
				_, _ = io.WriteString(w, event("running"))
				for range 100 {
					time.Sleep(15 * time.Second) // of the bubble
					_, _ = io.WriteString(w, ":\n\n")
				}
			}()
			return &http.Response{StatusCode: http.StatusOK, Body: body}, nil
		})
		var out, said bytes.Buffer
		a := &app{stdout: &out, stderr: &said}
		w := &watcher{a: a, t: target{url: "http://gateway"}, id: "7"}
		if err := w.run(t.Context()); err != nil || !strings.Contains(said.String(), "nothing came for 45s") {
			t.Errorf("%v: %s", err, &said)
		}
		const last = 100*15*time.Second + watchQuiet
		if len(began) != 2 || began[1] < last || began[1] > last+watchAgain {
			t.Errorf("streams begin at %v, want a second one %v later", began, last)
		}
	})
}

func TestTasksWatch_DrawsOverWhatItDrew(t *testing.T) {
	dir, _ := streams(t, event("running")+event("running")+event("completed"))
	r := at(t, app{draws: true, environ: []string{"COLUMNS=50"}}, "", "tasks", "show", "--data", dir, "--watch", "7")
	if r.code != exitOK || !strings.HasPrefix(r.out, "\x1b[2J\x1b[Htask 7 ") || strings.Count(r.out, "\x1b[2J") != 1 ||
		strings.Count(r.out, "\x1b[H") != 3 || strings.Count(r.out, "\x1b[J") != 3 {
		t.Errorf("code %d, drew %q", r.code, r.out)
	}
	for line := range strings.Lines(r.out) {
		if text := strings.NewReplacer("\x1b[2J", "", "\x1b[H", "", "\x1b[K", "", "\x1b[J", "", "\n", "").Replace(line); len(text) > 50 || strings.Contains(text, "\x1b") {
			t.Errorf("%q has more than 50 columns, or steers the terminal", text)
		}
	}
	dir, _ = streams(t, event("running"), event("completed"))
	r = at(t, app{draws: true, sleep: func(context.Context, time.Duration) error { return nil }}, "", "tasks", "show", "--data", dir, "--watch", "7")
	if strings.Count(r.out, "\x1b[2J") != 2 {
		t.Errorf("what was said meanwhile stays: %q", r.out)
	}
}

func TestApp_WaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := new(app).wait(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := new(app).wait(t.Context(), time.Nanosecond); err != nil {
		t.Error(err)
	}
}
