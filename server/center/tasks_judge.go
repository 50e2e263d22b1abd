package center

import (
	"context"
	"encoding/json"

	"carillon/server/catalog"
	publicapi "carillon/server/center/api/public"
	"carillon/server/center/strictjson"
	"carillon/server/push"
	"carillon/server/task"
)

// size is how large an audience is, as far as is known without looking at everyone.
type size struct {
	users, devices int64
	exact          bool
	unknown        bool // nobody can tell
	membership     membership
	list           *task.List // if it is for one
}

// judge finds out how large the audience of a task is, and whether its template fits.
func (c *Center) judge(ctx context.Context, product *catalog.Product, req *taskRequest) (is size, err error) {
	q := req.request
	var variables []string
	var longest []int
	is.membership = atSend
	switch {
	case req.spec.List != 0:
		ref := task.ListRef{Product: product.ID, ID: req.spec.List}
		l, err := c.cfg.Tasks.List(ctx, ref)
		if err != nil {
			return is, err
		}
		if err := c.cfg.Tasks.KeepList(ctx, ref); err != nil {
			return is, err
		}
		is.list, is.users, is.exact = &l, l.Users, true
		variables, longest = l.Variables, l.Longest
	case q.everyone:
		is.membership, is.unknown = atDelivery, true
	case q.tags != nil:
		if err := c.judgeTags(ctx, product, q, &is); err != nil {
			return is, err
		}
	default:
		is.users, is.devices, is.exact = int64(len(q.targets)), int64(q.devices), true
	}
	if req.template == nil {
		return is, nil
	}
	if unknown := req.template.bind(variables); unknown != "" {
		return is, &invalid{[]strictjson.FieldError{{Pointer: "/message/body", Code: strictjson.UnknownValue,
			Detail: "a variable that the list does not have"}}}
	}
	if most := product.Limits.WithDefaults().BodyBytes; req.template.longest(longest) > most {
		return is, push.Errorf(push.KindTooLarge, string(codeMessageTooLarge), "with the longest values a body would have more than %d bytes", most)
	}
	return is, nil
}

func (c *Center) judgeTags(ctx context.Context, product *catalog.Product, q *request, is *size) error {
	is.membership = atDelivery
	if q.settles() {
		to, settled, err := c.settle(ctx, product, q, c.limits.SmallAudience)
		if err != nil {
			return err
		}
		if settled.membership == atSend {
			is.membership, is.users, is.exact = atSend, int64(len(to)), true
			return nil
		}
	}
	e, ok, err := c.estimate(ctx, product, q)
	if err != nil {
		return err
	}
	is.users, is.devices, is.exact, is.unknown = int64(e.users), int64(e.devices), e.exact && ok, !ok
	return nil
}

// needsApproval reports whether somebody else has to approve a task for such an audience.
func needsApproval(product *catalog.Product, is size) bool {
	if is.unknown {
		return product.Approval.Needs(-1)
	}
	return product.Approval.Needs(is.users)
}

// validatedTask answers a request that is only to be judged.
func (c *Center) validatedTask(ctx context.Context, product *catalog.Product, req *taskRequest, is size) (publicapi.CreateTaskResponseObject, error) {
	out := publicapi.CreateTask200JSONResponse{
		Valid: true, Users: int(is.users), Exact: is.exact, Membership: publicapi.AtSend, NeedsApproval: needsApproval(product, is),
	}
	if is.membership == atDelivery {
		out.Membership = publicapi.AtDelivery
	}
	if is.devices > 0 {
		out.Devices = new(int(is.devices))
	}
	if req.cron != nil {
		var next []publicapi.Moment
		for _, at := range req.cron.after(push.Milli(c.cfg.Clock.Now()), 5) {
			next = append(next, showTime(at))
		}
		out.NextRuns = &next
	}
	sample, err := c.sample(ctx, product, req, is)
	if err != nil {
		return nil, err
	}
	for _, e := range sample {
		body := req.request.message.Body
		if req.template != nil {
			body = req.template.fill(e.User, e.Values)
		}
		one := struct {
			Body *json.RawMessage `json:"body,omitempty"`
			User string           `json:"user"`
		}{User: string(e.User)}
		if req.request.message.Kind == push.BodyJSON {
			one.Body = new(json.RawMessage(body))
		}
		out.Sample = append(out.Sample, one)
	}
	return out, nil
}

// sampleMost is how many users a judgement shows the message for.
const sampleMost = 5

// sample returns some of the users that a task names, each of another part.
func (c *Center) sample(ctx context.Context, product *catalog.Product, req *taskRequest, is size) (out []task.Entry, err error) {
	for i := range req.request.targets {
		if len(out) < sampleMost {
			out = append(out, task.Entry{User: req.request.targets[i].User})
		}
	}
	if is.list == nil {
		return out, nil
	}
	ref := task.ListRef{Product: product.ID, ID: is.list.ID}
	for shard, n := range is.list.Chunks {
		if n == 0 || len(out) == sampleMost {
			continue
		}
		chunks, err := c.cfg.Tasks.Chunks(ctx, ref, push.Shard(shard), 0, 1)
		if err != nil {
			return nil, err
		}
		if len(chunks) > 0 && len(chunks[0].Entries) > 0 {
			out = append(out, chunks[0].Entries[0])
		}
	}
	return out, nil
}
