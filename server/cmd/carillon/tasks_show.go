package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// shownTask is what the commands read of a task.
type shownTask struct {
	ID            string          `json:"id"`
	State         string          `json:"state"`
	Reason        string          `json:"reason"`
	Name          string          `json:"name"`
	Created       string          `json:"created"`
	By            *actor          `json:"by"`
	NeedsApproval bool            `json:"needs_approval"`
	ApprovedBy    *actor          `json:"approved_by"`
	Parent        string          `json:"parent"`
	ClonedFrom    string          `json:"cloned_from"`
	To            json.RawMessage `json:"to"`
	Message       json.RawMessage `json:"message"`
	Template      bool            `json:"template"`
	TestGroup     []string        `json:"test_group"`
	Pace          *taskPace       `json:"pace"`
	Start         string          `json:"start"`
	Deadline      string          `json:"deadline"`
	Cron          string          `json:"cron"`
	TimeZone      string          `json:"time_zone"`
	NextRun       string          `json:"next_run"`
	Progress      struct {
		Users       int     `json:"users"`
		Exact       bool    `json:"exact"`
		Membership  string  `json:"membership"`
		Written     int     `json:"written"`
		LeftOut     int     `json:"left_out"`
		TakenBack   int     `json:"taken_back"`
		Percent     float64 `json:"percent"`
		PerSecond   float64 `json:"per_second"`
		ExpectedEnd string  `json:"expected_end"`
		Started     string  `json:"started"`
		Ended       string  `json:"ended"`
		Recalled    string  `json:"recalled"`
	} `json:"progress"`
	Funnel struct {
		Audience     int            `json:"audience"`
		Exact        bool           `json:"exact"`
		Online       int            `json:"online"`
		Waiting      int            `json:"waiting"`
		Sent         int            `json:"sent"`
		InFlight     int            `json:"in_flight"`
		Acknowledged int            `json:"acknowledged"`
		Displayed    int            `json:"displayed"`
		Clicked      int            `json:"clicked"`
		Expired      int            `json:"expired"`
		Recalled     int            `json:"recalled"`
		Dropped      map[string]int `json:"dropped"`
		Unaccounted  int            `json:"unaccounted"`
	} `json:"funnel"`
	Moves []struct {
		Move   string `json:"move"`
		From   string `json:"from"`
		To     string `json:"to"`
		At     string `json:"at"`
		By     *actor `json:"by"`
		Reason string `json:"reason"`
	} `json:"moves"`
	Allowed []string `json:"allowed"`
}

// actor is an API key that did something.
type actor struct {
	Key  string `json:"key"`
	Name string `json:"name"`
	At   string `json:"at"`
}

// by returns " by", and who it was; empty for nobody.
func by(a *actor) string {
	switch {
	case a == nil:
		return ""
	case a.Name == "":
		return " by key " + a.Key
	}
	return fmt.Sprintf(" by %q (key %s)", a.Name, a.Key)
}

// hasEnded reports whether nothing happens to the task any more by itself.
func (t *shownTask) hasEnded() bool {
	return t.State == "completed" || t.State == "stopped" || t.State == "failed"
}

// users returns how many users the task is for.
func (t *shownTask) users() string {
	if t.Progress.Exact {
		return strconv.Itoa(t.Progress.Users)
	}
	return "about " + strconv.Itoa(t.Progress.Users)
}

// written returns how many of its users have the message in their slots.
func (t *shownTask) written() string {
	if t.Progress.Users == 0 && !t.Progress.Exact {
		return percent(t.Progress.Percent) + " of the product's users"
	}
	s := fmt.Sprintf("%d of %s users", t.Progress.Written, t.users())
	if n := t.Progress.LeftOut; n > 0 {
		s += fmt.Sprintf(", %d had it in the test", n)
	}
	return s
}

// stands returns the state, and what it means.
func (t *shownTask) stands() string {
	reason := ""
	if t.Reason != "" {
		reason = " (" + t.Reason + ")"
	}
	switch t.State {
	case "draft":
		return "a draft: nothing happens until it is handed in"
	case "awaiting_approval":
		return "awaiting_approval: somebody with another API key has to approve it"
	case "scheduled":
		switch {
		case t.NextRun != "":
			return "scheduled: it recurs, next at " + t.NextRun
		case t.Start != "":
			return "scheduled: it starts at " + t.Start + ", or at once if that is past"
		}
		return "scheduled: it starts as soon as a node takes it"
	case "paused":
		switch t.Reason {
		case "test_group":
			return "paused (test_group): the test group has it, the others wait until it is resumed"
		case "switched_off":
			return "paused (switched_off): it waits until tasks are switched on"
		}
		return "paused" + reason + ": it waits until it is resumed, written for " + t.written()
	case "recalling":
		return fmt.Sprintf("recalling%s: taken back from %s so far", reason, plural(t.Progress.TakenBack, "user"))
	case "stopped":
		if t.Progress.Recalled != "" {
			return "stopped" + reason + ": its message was taken back"
		}
	}
	return t.State + reason + ": written for " + t.written()
}

func percent(p float64) string { return strconv.FormatFloat(p, 'f', 1, 64) + " %" }

// number returns a number with as many digits as it needs.
func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// rate returns what was measured.
func rate(f float64) string {
	if f >= 10 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'f', 1, 64)
}

// bar returns a bar of so many columns, of which a part is done.
func bar(part float64, columns int) string {
	n := int(part*float64(columns) + 0.5)
	if part > 0 {
		n = max(n, 1)
	}
	return strings.Repeat("#", min(max(n, 0), columns))
}

// pairs returns names and values, each pair a line, the values below each other. Nothing in them steers a terminal.
func pairs(rows [][2]string) (lines []string) {
	widest := 0
	for _, r := range rows {
		widest = max(widest, utf8.RuneCountInString(plain(r[0])))
	}
	for _, r := range rows {
		name := plain(r[0])
		lines = append(lines, name+strings.Repeat(" ", widest-utf8.RuneCountInString(name)+2)+plain(r[1]))
	}
	return lines
}

// plain returns a text in one line in which nothing steers a terminal.
func plain(s string) string {
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(printable(s))
}

// cut cuts a line to so many columns, as far as each character takes one.
func cut(line string, columns int) string {
	if utf8.RuneCountInString(line) <= columns {
		return line
	}
	return string([]rune(line)[:columns-3]) + "..."
}

// movesShown is how many of a task's moves are shown where little room is.
const movesShown = 6

// view returns a task as people see it, in lines of so many columns. Of its moves the latest most are shown.
func (t *shownTask) view(columns, most int, now time.Time) (lines []string) {
	add := func(more ...string) { lines = append(lines, more...) }
	add(plain("task "+t.ID+" "+quoteName(t.Name)), plain(t.stands()), "")
	if p := &t.Progress; p.Started != "" {
		room := columns/2 - 2
		done := bar(p.Percent/100, room)
		add(plain("["+done+strings.Repeat(".", room-len(done))+"]  "+percent(p.Percent)+"  "+t.written()), "")
	}
	add(pairs(t.facts(now))...)
	if t.Progress.Started != "" {
		add(t.devices(columns)...)
	}
	if moves := t.Moves[max(0, len(t.Moves)-most):]; len(moves) > 0 {
		add("", "MOVES")
		var rows [][2]string
		for _, m := range moves {
			text := m.From + " > " + m.To + by(m.By)
			if m.Reason != "" {
				text += ": " + m.Reason
			}
			rows = append(rows, [2]string{m.At + "  " + m.Move, text})
		}
		add(pairs(rows)...)
	}
	if len(t.Allowed) > 0 {
		add("", plain("now allowed: "+strings.Join(t.Allowed, ", ")))
	}
	for i := range lines {
		lines[i] = cut(lines[i], columns)
	}
	return lines
}

// facts returns what is known of a task apart from numbers, by name.
func (t *shownTask) facts(now time.Time) (rows [][2]string) {
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, [2]string{name, value})
		}
	}
	p := &t.Progress
	pace := t.Pace.String()
	if t.State == "running" && p.PerSecond > 0 {
		pace += ", now " + rate(p.PerSecond) + " users a second"
	}
	add("pace", pace)
	if end, err := time.Parse(time.RFC3339, p.ExpectedEnd); err == nil {
		add("expected end", p.ExpectedEnd+", in "+end.Sub(now).Round(time.Second).String())
	}
	to := string(t.To)
	switch p.Membership {
	case "at_send":
		to += ", settled when it started"
	case "at_delivery":
		to += ", settled when a device comes to it"
	}
	add("to", to)
	message := string(t.Message)
	if t.Template {
		message = "template " + message
	}
	add("message", message)
	if n := len(t.TestGroup); n > 0 {
		group := strings.Join(t.TestGroup[:min(n, 5)], ", ")
		if n > 5 {
			group += fmt.Sprintf(" and %d more", n-5)
		}
		add("test group", group)
	}
	add("made", t.Created+by(t.By))
	switch {
	case t.ApprovedBy != nil:
		add("approved", t.ApprovedBy.At+by(t.ApprovedBy))
	case t.NeedsApproval:
		add("approval", "needed, with another API key")
	}
	add("cloned from", t.ClonedFrom)
	add("occurrence of", t.Parent)
	add("start", t.Start)
	add("deadline", t.Deadline)
	if t.Cron != "" {
		add("recurs", t.Cron+" in "+first(t.TimeZone, "UTC"))
	}
	add("started", p.Started)
	add("ended", p.Ended)
	add("taken back", p.Recalled)
	return rows
}

// count is a line of the funnel.
type count struct {
	name string
	n    int
}

// devices returns the funnel: how far the message came on devices, and what keeps it from the others.
func (t *shownTask) devices(columns int) (lines []string) {
	f := &t.Funnel
	title := "DEVICES"
	if !f.Exact {
		title += " (how many there are is estimated)"
	}
	lines = append(lines, "", title)
	lines = append(lines, counted(columns, f.Audience, []count{
		{"audience", f.Audience}, {"online when written", f.Online}, {"sent", f.Sent}, {"acknowledged", f.Acknowledged},
		{"displayed", f.Displayed}, {"clicked", f.Clicked},
	})...)
	var rest []count
	for _, c := range append([]count{
		{"waiting", f.Waiting}, {"in flight", f.InFlight}, {"expired", f.Expired}, {"recalled", f.Recalled}, {"unaccounted", f.Unaccounted},
	}, dropped(f.Dropped)...) {
		if c.n > 0 {
			rest = append(rest, c)
		}
	}
	if len(rest) > 0 {
		lines = append(append(lines, "", "NOT ACKNOWLEDGED"), counted(columns, f.Audience, rest)...)
	}
	return lines
}

// dropped returns what was dropped by reason, the reasons in order.
func dropped(by map[string]int) (out []count) {
	for reason, n := range by {
		out = append(out, count{"dropped (" + reason + ")", n})
	}
	slices.SortFunc(out, func(a, b count) int { return strings.Compare(a.name, b.name) })
	return out
}

// nameWidth is how wide names of counts are shown.
const nameWidth = 19

// counted returns counts as a table with bars, by their part of all.
func counted(columns, all int, rows []count) (lines []string) {
	digits := len(strconv.Itoa(all))
	for _, r := range rows {
		digits = max(digits, len(strconv.Itoa(r.n)))
	}
	for _, r := range rows {
		part := 0.0
		if all > 0 {
			part = float64(r.n) / float64(all)
		}
		line := fmt.Sprintf("%-*s  %*d  %7s  %s", nameWidth, plain(r.name), digits, r.n, percent(100*part), bar(part, columns-nameWidth-digits-13))
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}

// line returns a task in one line, for whoever watches it without a terminal.
func (t *shownTask) line(now time.Time) string {
	s := now.UTC().Format(time.RFC3339) + " " + t.stands()
	if f := &t.Funnel; t.Progress.Started != "" {
		if t.State == "running" {
			s += "; " + percent(t.Progress.Percent)
			if t.Progress.PerSecond > 0 {
				s += ", " + rate(t.Progress.PerSecond) + " users a second"
			}
		}
		s += fmt.Sprintf("; devices: %d acknowledged, %d in flight, %d waiting", f.Acknowledged, f.InFlight, f.Waiting)
	}
	return plain(s)
}

type tasksShowCmd struct {
	taskFlags
	Watch bool `short:"w" help:"Go on showing it until it ends."`
	JSON  bool `name:"json" help:"Print the task as it came; with --watch each time that it changes, one a line."`
}

// Help is shown under --help.
func (tasksShowCmd) Help() string {
	return `Shows the state of a task, how far it has come, what became of its message on devices, and what was done with it. A device stands
once in the funnel: those that acknowledged the message and those below NOT ACKNOWLEDGED are the audience together.

With --watch it goes on until the task is completed, stopped or failed: on a terminal in place, elsewhere in a line for each change. A
stream that breaks off is taken up again. Then the exit code is 0 if all is written, or the message was taken back, and otherwise 1.
Ctrl-C ends watching and leaves the task as it is. The API key needs the scope tasks:read.

Example:

    carillon tasks show 7345881023471616 --watch`
}

// Run executes the command.
func (c *tasksShowCmd) Run(ctx context.Context, a *app) error {
	t, err := c.target(a)
	if err != nil {
		return err
	}
	if c.Watch {
		w := &watcher{a: a, t: t, id: c.ID, json: c.JSON}
		return w.run(ctx)
	}
	b, err := t.call(ctx, http.MethodGet, c.path(), nil, nil)
	if err != nil {
		return err
	}
	if c.JSON {
		a.print("%s", bytes.TrimSpace(b))
		return nil
	}
	task, err := readTask(b)
	if err != nil {
		return err
	}
	for _, line := range task.view(a.width(), len(task.Moves), time.Now()) {
		a.print("%s", line)
	}
	return nil
}
