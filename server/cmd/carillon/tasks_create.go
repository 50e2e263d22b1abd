package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

type tasksCreateCmd struct {
	publicFlags
	audienceFlags
	List     string `xor:"to" placeholder:"ID" help:"To the users of an uploaded list."`
	ListFile string `xor:"to" placeholder:"FILE" help:"To the users in this file, CSV or NDJSON, which is uploaded first (see \"carillon lists upload\"); - is standard input."`
	Strict   bool   `help:"With --list-file: make nothing if a line is wrong."`
	messageFlags
	Template bool `help:"In texts of the body {{name}} stands for the column of that name of the list, {{name|other}} for other where that is empty, {{user}} for the user."`

	Name      string   `help:"A name for people."`
	TestGroup []string `sep:"none" placeholder:"USER" help:"This user gets it first, and then the task waits to be resumed; may be repeated."`
	paceFlags
	Start    string `placeholder:"TIME" help:"Not before then, as in 2027-01-31T09:00:00Z or, from now, 30m."`
	Deadline string `placeholder:"TIME" help:"What is not written by then is not written; written like --start."`
	Cron     string `placeholder:"FIELDS" help:"When it recurs: minute, hour, day of month, month, day of week as in cron, or @hourly, @daily, @weekly, @monthly."`
	TimeZone string `placeholder:"ZONE" help:"With --cron: whose clocks count, as in Europe/Berlin; UTC unless you say otherwise."`
	Draft    bool   `help:"Only store it; \"carillon tasks resume\" hands it in."`

	IdempotencyKey string `placeholder:"KEY" help:"Name of this request: repeating it makes the task once. One is made up if you give none."`
	ValidateOnly   bool   `xor:"then" help:"Make nothing; say how large the audience is, whether somebody has to approve, and show the message for some users."`
	Watch          bool   `xor:"then" help:"Watch it until it ends (see \"carillon tasks show\")."`
	JSON           bool   `name:"json" help:"Print the answer as it came."`
}

// Help is shown under --help.
func (tasksCreateCmd) Help() string {
	return `A task sends one message to many: to users, devices, tags, everyone, or a list of up to a million users. When the command
succeeds, the task is stored; the gateway runs it from then on, whatever becomes of this terminal. Standard output has the task's id
alone. The API key needs the scope tasks:write.

First see what it would be, then colleagues get it, then all:

    carillon tasks create --list-file customers.csv --template --body '{"text":"Hello {{first_name|there}}"}' --validate-only
    carillon tasks create --list 7345881023471616 --template --body '{"text":"Hello {{first_name|there}}"}' --test-group alice --watch

More examples:

    carillon tasks create --everyone --body '{"text":"Our terms change."}' --over 1h --start 2027-01-31T09:00:00Z
    carillon tasks create --tag digest --body '{"kind":"digest"}' --collapse-key digest --cron "0 9 * * 1" --time-zone Europe/Berlin`
}

// taskRequest is the body of POST /v1/tasks.
type taskRequest struct {
	Name         string     `json:"name,omitempty"`
	To           audience   `json:"to"`
	Message      newMessage `json:"message"`
	Template     bool       `json:"template,omitempty"`
	TestGroup    []string   `json:"test_group,omitempty"`
	Pace         *taskPace  `json:"pace,omitempty"`
	Start        string     `json:"start,omitempty"`
	Deadline     string     `json:"deadline,omitempty"`
	Cron         string     `json:"cron,omitempty"`
	TimeZone     string     `json:"time_zone,omitempty"`
	Draft        bool       `json:"draft,omitempty"`
	ValidateOnly bool       `json:"validate_only,omitempty"`
}

// Run executes the command.
func (c *tasksCreateCmd) Run(ctx context.Context, a *app) error {
	req, err := c.request(a, time.Now())
	if err != nil {
		return err
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	if c.ListFile != "" {
		list, _, err := upload(ctx, a, t, c.ListFile, c.Name, c.Strict)
		if err != nil {
			return err
		}
		list.report(a)
		req.To.List = list.ID
		if err := c.moments(req, time.Now()); err != nil { // it took a while
			return err
		}
	}
	header := make(http.Header)
	key := ""
	if !c.ValidateOnly {
		key = first(c.IdempotencyKey, "cli-"+rand.Text())
		header.Set("Idempotency-Key", key)
	}
	b, err := t.call(ctx, http.MethodPost, "/v1/tasks", req, header)
	if err != nil {
		if key != "" {
			err = unsure(err, "a task was made", key+req.moments())
		}
		if c.ListFile != "" { // the same file again would be another list, and another request
			err = fmt.Errorf("%w\nthe list is uploaded: give --list %s in place of --list-file", err, printable(req.To.List))
		}
		return err
	}
	return c.report(ctx, a, t, b)
}

// moments returns the flags for when it starts and ends, as a repeat has to write them: "30m" would be another moment by then.
func (r *taskRequest) moments() (flags string) {
	if r.Start != "" {
		flags += " --start " + r.Start
	}
	if r.Deadline != "" {
		flags += " --deadline " + r.Deadline
	}
	return flags
}

// listToCome stands for the list that a file is uploaded to.
const listToCome = "-"

func (c *tasksCreateCmd) request(a *app, now time.Time) (r *taskRequest, err error) {
	list := c.List
	if c.ListFile != "" {
		list = listToCome
	}
	r = &taskRequest{
		Name: c.Name, Template: c.Template, TestGroup: c.TestGroup, Cron: c.Cron, TimeZone: c.TimeZone, Draft: c.Draft, ValidateOnly: c.ValidateOnly,
	}
	switch {
	case c.Strict && c.ListFile == "":
		return nil, usagef("--strict is for --list-file")
	case c.ListFile == "-" && c.BodyFile == "-":
		return nil, usagef("standard input is the list or the body: give one of them as a file")
	case c.TimeZone != "" && c.Cron == "":
		return nil, usagef("--time-zone is for --cron")
	case c.Cron != "" && (c.Start != "" || len(c.TestGroup) > 0):
		return nil, usagef("--cron goes without --start and --test-group")
	}
	if r.To, err = c.audience(list, "--user, --device, --tag, --tags, --everyone, --list or --list-file"); err != nil {
		return nil, err
	}
	if r.Message, err = c.message(a); err != nil {
		return nil, err
	}
	if r.Pace, err = c.pace(); err != nil {
		return nil, err
	}
	return r, c.moments(r, now)
}

// moments sets when the task starts and ends.
func (c *tasksCreateCmd) moments(r *taskRequest, now time.Time) (err error) {
	if r.Start, err = momentOf("--start", c.Start, now); err == nil {
		r.Deadline, err = momentOf("--deadline", c.Deadline, now)
	}
	return err
}

// report says what was made, or would be, and what comes next.
func (c *tasksCreateCmd) report(ctx context.Context, a *app, t target, answer []byte) error {
	if c.JSON && !c.Watch {
		a.print("%s", bytes.TrimSpace(answer))
		return nil
	}
	if c.ValidateOnly {
		return reportValidated(a, answer)
	}
	task, err := readTask(answer)
	if err != nil {
		return err
	}
	a.say("%s", printable("made task "+task.ID+", which is "+task.stands()))
	switch {
	case task.State == "draft":
		a.say("hand it in with: carillon tasks resume %s", printable(task.ID))
	case task.State == "awaiting_approval":
		a.say("somebody with another API key approves it with: carillon tasks approve %s", printable(task.ID))
	case !c.Watch:
		a.say("watch it with: carillon tasks show %s --watch", printable(task.ID))
	}
	if !c.Watch {
		a.print("%s", printable(task.ID))
		return nil
	}
	w := &watcher{a: a, t: t, id: task.ID, json: c.JSON}
	return w.run(ctx)
}

// reportValidated says what a request would make.
func reportValidated(a *app, answer []byte) error {
	var v struct {
		Users         int
		Devices       int
		Exact         bool
		Membership    string
		NeedsApproval bool     `json:"needs_approval"`
		NextRuns      []string `json:"next_runs"`
		Sample        []struct {
			User string
			Body json.RawMessage
		}
	}
	if err := json.Unmarshal(answer, &v); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	size := plural(v.Users, "user")
	if v.Devices > 0 {
		size = plural(v.Devices, "device") + " of " + size
	}
	switch {
	case !v.Exact && v.Users == 0:
		size = "nobody can tell for how many without looking at everyone"
	case !v.Exact:
		size = "about " + size
	}
	settled := "when it is sent"
	if v.Membership == "at_delivery" {
		settled = "when a device comes to it"
	}
	approval := "not needed"
	if v.NeedsApproval {
		approval = "needed, with another API key"
	}
	a.say("the request is right; nothing was made")
	rows := [][2]string{{"for", size}, {"settled", settled}, {"approval", approval}}
	if len(v.NextRuns) > 0 {
		rows = append(rows, [2]string{"next", strings.Join(v.NextRuns, ", ")})
	}
	for _, s := range v.Sample {
		text := string(s.Body)
		if s.Body == nil {
			text = "(binary)"
		}
		rows = append(rows, [2]string{"to " + s.User, text})
	}
	for _, line := range pairs(rows) {
		a.print("%s", line)
	}
	return nil
}

// momentOf reads a moment, or a time from now; empty stays empty.
func momentOf(flag, text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(d).UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return "", usagef("%s: write a moment as in 2027-01-31T00:00:00Z, or a time from now as in 720h", flag)
	}
	return at.UTC().Format(time.RFC3339Nano), nil
}
