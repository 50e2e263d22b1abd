package center

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"carillon/server/push"
)

// moment is the form of points in time.
const moment = "2006-01-02T15:04:05.000Z07:00"

// published answers a publish. Its body is appended by hand: encoding/json would cost as much as the rest of a request.
type published struct {
	status   int
	id       push.MsgID
	replayed bool
	body     []byte
}

// VisitPublishMessageResponse writes the answer.
func (p published) VisitPublishMessageResponse(w http.ResponseWriter) error {
	h := w.Header()
	if p.status == http.StatusCreated {
		h.Set("Location", "/v1/messages/"+p.id.String())
	}
	if p.replayed {
		h.Set("Idempotent-Replayed", "true")
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(p.status)
	_, err := w.Write(p.body)
	return err
}

// appendPublished appends the schema Published. It depends on the request and on what the store remembers under an
// idempotency key, and of the message, alone, so that a repeat has the same bytes.
func appendPublished(dst []byte, req *request, r *result) []byte {
	m := r.message
	dst = append(dst, `{"id":"`...)
	dst = strconv.AppendInt(dst, int64(m.ID), 10)
	dst = append(dst, '"')
	if req.message.Ref != "" {
		dst = append(dst, `,"ref":`...)
		dst = appendString(dst, req.message.Ref)
	}
	dst = append(dst, `,"persistent":`...)
	dst = strconv.AppendBool(dst, m.Persistent)
	dst = appendMoment(append(dst, `,"created":`...), m.Created)
	if m.Persistent {
		dst = appendMoment(append(dst, `,"expires":`...), m.Expires)
	}
	dst = appendTargets(append(dst, ','), req, r.settled)
	return append(dst, '}')
}

// appendValidated appends the schema Validated, perhaps with an estimate.
func appendValidated(dst []byte, req *request, is settled, e *estimate) []byte {
	dst = appendTargets(append(dst, `{"valid":true,`...), req, is)
	if e != nil {
		dst = strconv.AppendInt(append(dst, `,"estimate":{"users":`...), int64(e.users), 10)
		dst = strconv.AppendInt(append(dst, `,"devices":`...), int64(e.devices), 10)
		dst = strconv.AppendBool(append(dst, `,"exact":`...), e.exact)
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// appendTargets appends whom a request is for, and when that is settled: of an audience by tags as it was found out.
func appendTargets(dst []byte, req *request, is settled) []byte {
	dst = append(dst, `"targets":{`...)
	mark := len(dst)
	switch {
	case req.everyone:
		dst = append(dst, `,"everyone":true`...)
	case req.tags != nil && is.membership == atSend && is.users >= 0:
		dst = strconv.AppendInt(append(dst, `,"users":`...), int64(is.users), 10)
	case req.tags == nil:
		dst = strconv.AppendInt(append(dst, `,"users":`...), int64(len(req.targets)), 10)
	}
	if req.devices > 0 {
		dst = strconv.AppendInt(append(dst, `,"devices":`...), int64(req.devices), 10)
	}
	dst = appendAudience(dst, req.filter())
	dst = append(dst[:mark], dst[mark+1:]...) // each member has a comma in front
	if req.inCommon() && is.membership != atSend {
		return append(dst, `},"membership":"at_delivery"`...)
	}
	return append(dst, `},"membership":"at_send"`...)
}

func appendMoment(dst []byte, t push.MilliTime) []byte {
	dst = append(dst, '"')
	dst = t.Time().AppendFormat(dst, moment)
	return append(dst, '"')
}

// appendString appends a JSON string.
func appendString(dst []byte, s string) []byte {
	b, _ := json.Marshal(s) // a string: it cannot fail
	return append(dst, b...)
}

// showTime returns a point in time as answers hold it.
func showTime(t push.MilliTime) string { return t.Time().Format(moment) }

// optTime returns a point in time, nil for none.
func optTime(t push.MilliTime) *string {
	if t == 0 {
		return nil
	}
	return new(showTime(t))
}

// optString returns s, nil if it is empty.
func optString(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// optLimit returns a limit, nil if there is none.
func optLimit(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

// seconds returns whole seconds of a duration.
func seconds(d time.Duration) int { return int(d / time.Second) }
