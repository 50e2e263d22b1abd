package center

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"carillon/server/center/strictjson"
	"carillon/server/push"
	"carillon/server/task"
)

// Members of the objects that tasks are made of; the indexes follow the order of the names.
const (
	inTaskTo = iota
	inTaskMessage
	inTaskName
	inTaskTemplate
	inTaskTest
	inTaskPace
	inTaskStart
	inTaskDeadline
	inTaskCron
	inTaskZone
	inTaskDraft // not of a patch
	inTaskValidateOnly
)

const (
	inPerSecond = iota
	inOverSeconds
)

var (
	taskShape      = strictjson.NewShape(2, append(slices.Clone(taskMembers), "draft", "validate_only")...)
	taskPatchShape = strictjson.NewShape(0, taskMembers...)
	taskMembers    = []string{"to", "message", "name", "template", "test_group", "pace", "start", "deadline", "cron", "time_zone"}
	paceShape      = strictjson.NewShape(0, "per_second", "over_seconds")
	moveShape      = strictjson.NewShape(0, "reason")
	switchShape    = strictjson.NewShape(1, "off", "reason")
	// taskAudienceShape is audienceShape, and a list.
	taskAudienceShape = strictjson.NewShape(0, "users", "devices", "tags", "everyone", "platforms", "classes", "membership", "list")

	cronRule = strictjson.Rule{Least: 1, Most: 100}
	zoneRule = strictjson.Rule{Least: 1, Most: 64}
)

const (
	minPerSecond = 0.01
	maxPerSecond = 1e6
	maxOver      = 30 * 24 * time.Hour
)

// taskRequest is a task that somebody asks to make, judged.
type taskRequest struct {
	spec     task.Spec
	request  *request // whom it is for, unless it is for a list, and its message
	template *template
	cron     *timetable

	draft        bool
	validateOnly bool
}

// parseTask reads the body of a request that makes a task.
func parseTask(body []byte, l *Limits, of push.Limits) (*taskRequest, error) {
	p := parser{r: strictjson.NewReader(body), limits: l, of: of}
	t := &taskRequest{request: new(request)}
	seen, ok := p.r.Object(taskShape, func(i int) { p.taskMember(t, i) })
	if ok {
		p.judgeTask(t, seen)
	}
	if err := p.r.End(); err != nil {
		return nil, err
	}
	if errs := p.r.Errors(); len(errs) > 0 {
		return nil, &invalid{errs}
	}
	return t, p.large
}

func (p *parser) taskMember(t *taskRequest, i int) {
	s := &t.spec
	switch i {
	case inTaskTo:
		s.To = p.r.Capture(func() { p.taskAudience(t) })
	case inTaskMessage:
		s.Message = p.r.Capture(func() { p.message(t.request) })
	case inTaskName:
		s.Name, _ = p.r.Text(nameRule)
	case inTaskTemplate:
		s.Template, _ = p.r.Bool()
	case inTaskTest:
		s.Test = p.testGroup()
	case inTaskPace:
		s.Pace = p.pace()
	case inTaskStart:
		s.Start = p.moment()
	case inTaskDeadline:
		s.Deadline = p.moment()
	case inTaskCron:
		s.Cron = p.cron(t)
	case inTaskZone:
		s.Zone = p.zone()
	case inTaskDraft:
		t.draft, _ = p.r.Bool()
	case inTaskValidateOnly:
		t.validateOnly, _ = p.r.Bool()
	}
}

// judgeTask looks at what members say together.
func (p *parser) judgeTask(t *taskRequest, seen strictjson.Set) {
	s, m := &t.spec, &t.request.message
	name := taskShape.Name
	if seen.Has(inTaskZone) && !seen.Has(inTaskCron) {
		p.r.Note(strictjson.NotAllowed, "only with cron", name(inTaskZone))
	}
	if seen.Has(inTaskCron) {
		for _, i := range [...]int{inTaskStart, inTaskTest} {
			if seen.Has(i) {
				p.r.Note(strictjson.NotAllowed, "not with cron", name(i))
			}
		}
	}
	if t.cron != nil {
		t.cron.zone(s.Zone)
	}
	if s.Deadline != 0 && s.Start != 0 && s.Deadline <= s.Start {
		p.r.Note(strictjson.TooSmall, "after start", name(inTaskDeadline))
	}
	if !m.Persistent && t.request.inCommon() && s.Pace != (task.Pace{}) {
		p.r.Note(strictjson.NotAllowed, "a message that is not persistent goes to everyone, or to tags, at once", name(inTaskPace))
	}
	if s.Template && m.Kind != push.BodyJSON {
		p.r.Note(strictjson.NotAllowed, "only with a JSON body", name(inTaskTemplate))
	} else if s.Template && m.Body != nil {
		var err error
		if t.template, err = parseTemplate(m.Body); err != nil {
			p.r.Note(strictjson.BadFormat, err.Error(), name(inTaskMessage), messageShape.Name(inBody))
		}
		if t.request.inCommon() {
			p.r.Note(strictjson.NotAllowed, "for everyone, and for tags, all get the same", name(inTaskTemplate))
		}
	}
}

// taskAudience reads whom a task is for: what a message is for, or a list.
func (p *parser) taskAudience(t *taskRequest) {
	if p.r.Type() != strictjson.Object {
		p.audienceOf(t.request, taskAudienceShape, nil)
		return
	}
	p.audienceOf(t.request, taskAudienceShape, func() {
		s, ok := p.r.Text(strictjson.Rule{})
		if !ok {
			return
		}
		id, err := push.ParseMsgID(s)
		if err != nil {
			p.r.Note(strictjson.BadFormat, "the id of a list")
		}
		t.spec.List = id
	})
}

func (p *parser) testGroup() []push.UserID {
	var users []push.UserID
	p.r.Array(1, task.MaxTest, func(int) {
		s, _ := p.r.Text(userRule)
		users = append(users, push.UserID(s))
	})
	noteRepeats(p.r, users, func(u push.UserID) push.UserID { return u })
	slices.Sort(users)
	return slices.Compact(users)
}

func (p *parser) pace() (out task.Pace) {
	seen, ok := p.r.Object(paceShape, func(i int) {
		switch i {
		case inPerSecond:
			out.PerSecond, _ = p.r.Number(minPerSecond, maxPerSecond)
		case inOverSeconds:
			n, _ := p.r.Int(1, int64(maxOver/time.Second))
			out.Over = time.Duration(n) * time.Second
		}
	})
	if ok && seen.Count() != 1 {
		p.r.Note(strictjson.NotOneOf, "exactly one of per_second and over_seconds")
	}
	return out
}

func (p *parser) moment() push.MilliTime {
	s, ok := p.r.Text(strictjson.Rule{})
	if !ok {
		return 0
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 1970 {
		p.r.Note(strictjson.BadFormat, "a moment of RFC 3339, such as 2030-01-01T00:00:00Z")
		return 0
	}
	return max(push.Milli(t), 1)
}

func (p *parser) cron(t *taskRequest) string {
	s, ok := p.r.Text(cronRule)
	if !ok {
		return ""
	}
	var err error
	if t.cron, err = newTimetable(s); err != nil {
		p.r.Note(strictjson.BadFormat, "five fields, as in cron, such as 0 9 * * 1-5, or @hourly, @daily, @weekly, @monthly")
	}
	return s
}

func (p *parser) zone() string {
	s, ok := p.r.Text(zoneRule)
	if ok && !isZone(s) {
		p.r.Note(strictjson.UnknownValue, "a name of the IANA database, such as Europe/Berlin")
	}
	return s
}

// parseTaskPatch reads the members that a patch replaces, each as it is; null takes one away. What they say is judged with the others, as a whole.
func parseTaskPatch(body []byte) (members map[string]json.RawMessage, err error) {
	r := strictjson.NewReader(body)
	members = make(map[string]json.RawMessage)
	seen, ok := r.Object(taskPatchShape, func(i int) {
		null := r.Type() == strictjson.Null
		raw := r.Capture(r.Skip)
		if null {
			if i == inTaskTo || i == inTaskMessage || i == inTaskTemplate || i == inTaskName {
				r.Note(strictjson.WrongType, "it cannot be taken away")
			}
			raw = nil
		}
		members[taskPatchShape.Name(i)] = raw
	})
	if ok && seen == 0 {
		r.Note(strictjson.TooFew, "at least one member")
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	if errs := r.Errors(); len(errs) > 0 {
		return nil, &invalid{errs}
	}
	return members, nil
}

// appendSpec appends what parseTask made a spec of, with some members replaced.
func appendSpec(dst []byte, s *task.Spec, replaced map[string]json.RawMessage) []byte {
	members := map[string]json.RawMessage{"to": s.To, "message": s.Message, "name": quoted(s.Name)}
	if s.Template {
		members["template"] = json.RawMessage("true")
	}
	if len(s.Test) > 0 {
		members["test_group"], _ = json.Marshal(s.Test) // strings: it cannot fail
	}
	if p := appendPace(nil, s.Pace); p != nil {
		members["pace"] = p
	}
	if s.Start != 0 {
		members["start"] = quoted(showTime(s.Start))
	}
	if s.Deadline != 0 {
		members["deadline"] = quoted(showTime(s.Deadline))
	}
	if s.Cron != "" {
		members["cron"] = quoted(s.Cron)
	}
	if s.Zone != "" {
		members["time_zone"] = quoted(s.Zone)
	}
	for name, raw := range replaced {
		members[name] = raw
	}
	dst = append(dst, '{')
	first := true
	for _, name := range taskMembers {
		raw := members[name]
		if raw == nil {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(append(appendString(dst, name), ':'), raw...)
	}
	return append(dst, '}')
}

func quoted(s string) json.RawMessage { return appendString(nil, s) }

// appendPace appends the schema TaskPace; nothing if there is no pace.
func appendPace(dst []byte, p task.Pace) []byte {
	switch {
	case p.Over != 0:
		return append(strconv.AppendInt(append(dst, `{"over_seconds":`...), int64(p.Over/time.Second), 10), '}')
	case p.PerSecond != 0:
		return append(strconv.AppendFloat(append(dst, `{"per_second":`...), p.PerSecond, 'f', -1, 64), '}')
	}
	return dst
}

// parseReason reads the body of a move, which may be left out.
func parseReason(body []byte) (reason string, err error) {
	if len(body) == 0 {
		return "", nil
	}
	err = parseBody(body, moveShape, func(r *strictjson.Reader, _ int) {
		if reason, _ = r.Text(reasonRule); slices.Contains(task.Reasons(), reason) {
			r.Note(strictjson.NotAllowed, "the gateway itself says that")
		}
	}, nil)
	return reason, err
}

// parseSwitch reads the body that sets the switch of all tasks.
func parseSwitch(body []byte) (s task.Switch, err error) {
	err = parseBody(body, switchShape, func(r *strictjson.Reader, i int) {
		if i == 0 {
			s.Off, _ = r.Bool()
		} else {
			s.Reason, _ = r.Text(reasonRule)
		}
	}, nil)
	return s, err
}
