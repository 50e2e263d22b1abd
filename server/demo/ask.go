package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"carillon/server/push"
)

// maxBody leaves room around the largest request that the API takes, which judges the rest.
const maxBody = 512 << 10

// guarded serves a request that changes something, unless a page of another site may have sent it. A browser says where a page is from,
// and sends JSON to another origin only after asking there, which is answered no. Programs say nothing, and may do as they like: they
// could read dev.json.
func guarded(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		refuse(w, http.StatusForbidden, "cross_site", "only the demo page itself may ask for this")
		return
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "unsupported_media_type", "the body has to be application/json")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	serve(w, r)
}

// read decodes the body into to, or answers what is wrong with it and returns false.
func read(w http.ResponseWriter, r *http.Request, to any) bool {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(to)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return true
		}
		err = errors.Join(errors.New("something follows the JSON value"), err)
	}
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		refuse(w, http.StatusRequestEntityTooLarge, "request_too_large", "the body is too large")
		return false
	}
	// The error's text may quote the body, which goes back to who sent it and nowhere else.
	refuse(w, http.StatusBadRequest, "invalid_request", "the body is not what this path takes: "+err.Error())
	return false
}

func (h *Handler) serveToken(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		User    push.UserID   `json:"user"`
		Device  push.DeviceID `json:"device"`
		Seconds *int64        `json:"seconds"` // an hour, if it is left out
	}
	if !read(w, r, &ask) {
		return
	}
	if err := errors.Join(ask.User.Check(), ask.Device.Check()); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	life := defaultTokenLife
	if s := ask.Seconds; s != nil {
		if *s < int64(MinTokenLife/time.Second) || *s > int64(MaxTokenLife/time.Second) {
			refuse(w, http.StatusBadRequest, "invalid_request", "seconds: from 2 to 86400")
			return
		}
		life = time.Duration(*s) * time.Second
	}
	token, err := h.cfg.Mint(ask.User, ask.Device, life)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "internal", "the token could not be made")
		return
	}
	answer(w, http.StatusOK, "application/json", map[string]string{"token": token})
}

func (h *Handler) serveSend(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		User       string          `json:"user"`
		Tag        string          `json:"tag"`
		Everyone   bool            `json:"everyone"`
		Persistent *bool           `json:"persistent"` // true, if it is left out
		Body       json.RawMessage `json:"body"`
	}
	if !read(w, r, &ask) {
		return
	}
	to := map[string]any{}
	if ask.User != "" {
		to["users"] = []string{ask.User}
	}
	if ask.Tag != "" {
		to["tags"] = map[string]any{"all": []string{ask.Tag}}
	}
	if ask.Everyone {
		to["everyone"] = true
	}
	if len(to) != 1 {
		refuse(w, http.StatusBadRequest, "invalid_request", "exactly one of user, tag and everyone is needed")
		return
	}
	message := map[string]any{"body": ask.Body}
	if ask.Persistent != nil {
		message["persistent"] = *ask.Persistent
	}
	h.forward(w, r, http.MethodPost, "/v1/messages", map[string]any{"to": to, "message": message})
}

func (h *Handler) serveRecall(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		ID string `json:"id"`
	}
	if !read(w, r, &ask) {
		return
	}
	if ask.ID == "" {
		refuse(w, http.StatusBadRequest, "invalid_request", "id: needed")
		return
	}
	h.forward(w, r, http.MethodDelete, "/v1/messages/"+url.PathEscape(ask.ID), nil)
}

func (h *Handler) serveKick(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		User   push.UserID   `json:"user"`
		Device push.DeviceID `json:"device"`
	}
	if !read(w, r, &ask) {
		return
	}
	if err := errors.Join(ask.User.Check(), ask.Device.Check()); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	h.forward(w, r, http.MethodPost, "/v1/users/"+url.PathEscape(string(ask.User))+"/kick",
		map[string]any{"device": ask.Device, "reason": "Somebody pressed Kick on the demo page."})
}

// forward asks the node's API, whose answer is the answer. Nothing of the page's own request goes along but its context and its address.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, method, path string, body any) {
	to, err := h.request(r.Context(), method, path, body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", "this cannot be asked of the API")
		return
	}
	to.RemoteAddr, to.Host = r.RemoteAddr, r.Host
	h.cfg.API.ServeHTTP(w, to)
}

// request makes a request to the API. Without a body it has none.
func (h *Handler) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var from io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		from = bytes.NewReader(b)
	}
	to, err := http.NewRequestWithContext(ctx, method, path, from)
	if err != nil {
		return nil, err
	}
	to.Header.Set("Authorization", "Bearer "+h.cfg.Key)
	if body != nil {
		to.Header.Set("Content-Type", "application/json")
	}
	return to, nil
}

// refuse answers with an RFC 9457 document. Codes are stable.
func refuse(w http.ResponseWriter, status int, code, detail string) {
	answer(w, status, "application/problem+json", map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "code": code, "detail": detail,
	})
}

func answer(w http.ResponseWriter, status int, contentType string, v any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a browser that left is no concern of ours
}
