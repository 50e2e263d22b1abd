package center

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"carillon/server/center/strictjson"
	"carillon/server/push"
	"carillon/server/task"
	taskmemory "carillon/server/task/memory"
)

// endless is a text without an end, and how much of it was read.
type endless struct {
	text string
	n    int
}

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = e.text[(e.n+i)%len(e.text)]
	}
	e.n += len(b)
	return len(b), nil
}

func (g *gateway) upload(t *testing.T) *upload {
	t.Helper()
	g.tasks = taskmemory.New(taskmemory.Config{Clock: g.clock})
	return newUpload(g.tasks, task.List{Product: product, ID: 1, Shards: 4})
}

func TestUpload_ARecordWithoutAnEndIsNotHeld(t *testing.T) {
	g := newGateway(t)
	for _, text := range []string{"x", "x,y\n", "\n"} {
		rest := &endless{text: text}
		u := g.upload(t)
		err := u.readCSV(t.Context(), io.MultiReader(strings.NewReader("user\nalice\n\"bob"), rest))
		var refused *push.Error
		if !errors.As(err, &refused) || refused.Code != string(codeListMalformed) || !strings.Contains(refused.Detail, "behind 1 lines") {
			t.Errorf("%q: got %v, want it refused behind alice", text, err)
		}
		if rest.n > 1<<20 {
			t.Errorf("%q: %d bytes were read before that", text, rest.n)
		}
	}
}

func TestUpload_LongRecordsArePassedOver(t *testing.T) {
	u := newGateway(t).upload(t)
	// Lines whose values are not longer than may be, and that are: by other fields, and by an only one that is longer than what is read ahead.
	text := "user,a\nalice," + strings.Repeat("x", 4000) + "\nbob," + strings.Repeat("x", maxUploadLine) + "\ncathy,1\n"
	for i := range 200 {
		text += fmt.Sprintf("user%d,%s\n", i, strings.Repeat("y", 4000)) // more than any bound together
	}
	if err := u.readCSV(t.Context(), strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if u.list.Users != 202 || u.bad != 1 || u.errors[0].Line != 3 || string(u.errors[0].Code) != string(strictjson.TooLong) ||
		u.errors[0].Detail == nil || !strings.Contains(*u.errors[0].Detail, "a line has at most") {
		t.Errorf("%d users, %d bad lines: %+v", u.list.Users, u.bad, u.errors)
	}
}

func TestProgress_TheTestGroupIsNotCountedTwice(t *testing.T) {
	for _, c := range []struct {
		name             string
		written, skipped int64
		done             bool
		want             float64
	}{
		{"the test group has a part", 1, 0, false, 0},
		{"the test group has it", 2, 0, true, 0},
		{"half of the others, one of the test group among them", 6, 1, true, 0.5},
		{"all", 11, 1, true, 1},
	} {
		// Ten users, and a test group of two of whom one is among them.
		x := task.Task{Spec: task.Spec{Test: []push.UserID{"alice", "zoe"}}, State: task.Running,
			Run: task.Run{Settled: true, Users: 10, Written: c.written, Skipped: c.skipped, TestDone: c.done}}
		if got := partDone(&x); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
